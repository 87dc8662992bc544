-- Quality of products. Whatever may change it leaves a note in its own transaction; a worker grades the product and deletes
-- the note in another one. Nobody who sells waits for a grade.

CREATE TABLE products_to_grade (
    note_no          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id       text,
    category_id      text,
    with_descendants boolean NOT NULL DEFAULT false,
    after_product    text NOT NULL DEFAULT '',
    noted_at         timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(product_id, category_id) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.5);
CREATE INDEX products_to_grade_of_product ON products_to_grade (product_id) WHERE product_id IS NOT NULL;

CREATE TABLE product_quality (
    product_id  text PRIMARY KEY REFERENCES products,
    is_on_sale  boolean NOT NULL,
    category_id text REFERENCES categories,
    points      smallint NOT NULL CHECK (points BETWEEN 0 AND 100),
    reasons     text[] NOT NULL,
    findings    jsonb NOT NULL CHECK (jsonb_typeof(findings) = 'array'),
    duplicates  text[] NOT NULL,
    title_bands integer[] NOT NULL,
    graded_at   timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX product_quality_by_points ON product_quality (points, product_id);
CREATE INDEX product_quality_of_category ON product_quality (category_id, points, product_id);
CREATE INDEX product_quality_by_reason ON product_quality USING gin (reasons) WITH (fastupdate = off);
CREATE INDEX product_quality_by_title ON product_quality USING gin (title_bands) WITH (fastupdate = off);
CREATE INDEX product_quality_by_age ON product_quality (graded_at);

CREATE TABLE category_prices (
    category_id text NOT NULL REFERENCES categories,
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    products    integer NOT NULL CHECK (products >= 0),
    median      double precision NOT NULL,
    deviation   double precision NOT NULL CHECK (deviation >= 0),
    measured_at timestamptz NOT NULL,
    PRIMARY KEY (category_id, currency)
);

CREATE TABLE product_quality_days (
    day        date NOT NULL,
    root       text NOT NULL,
    is_on_sale boolean NOT NULL,
    grade      text NOT NULL CHECK (grade IN ('A', 'B', 'C', 'D', 'E')),
    products   integer NOT NULL CHECK (products > 0),
    points     bigint NOT NULL CHECK (points BETWEEN 0 AND 100 * products::bigint),
    PRIMARY KEY (day, root, is_on_sale, grade)
);

-- Products with their texts, whose changes raise a version; prices and measures of variants, which do not; pictures.
CREATE FUNCTION note_products_to_grade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products_to_grade (product_id) SELECT DISTINCT product_id FROM changed;
    RETURN NULL;
END $$;
CREATE TRIGGER grade_insert AFTER INSERT ON products REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_products_to_grade();
CREATE TRIGGER grade_update AFTER UPDATE ON products REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_products_to_grade();
CREATE TRIGGER grade_update AFTER UPDATE ON variants REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_products_to_grade();
CREATE TRIGGER grade_insert AFTER INSERT ON product_pictures REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_products_to_grade();
CREATE TRIGGER grade_delete AFTER DELETE ON product_pictures REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_products_to_grade();

-- A rule of a category counts for all below it.
CREATE FUNCTION note_rules_to_grade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products_to_grade (category_id, with_descendants) SELECT DISTINCT category_id, true FROM changed;
    RETURN NULL;
END $$;
CREATE TRIGGER grade_insert AFTER INSERT ON category_attributes REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_rules_to_grade();
CREATE TRIGGER grade_delete AFTER DELETE ON category_attributes REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_rules_to_grade();

CREATE FUNCTION note_changed_rules_to_grade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products_to_grade (category_id, with_descendants)
    SELECT DISTINCT changed.category_id, true FROM changed JOIN before USING (category_id, attribute_id)
    WHERE changed.rule <> before.rule;
    RETURN NULL;
END $$;
CREATE TRIGGER grade_update AFTER UPDATE ON category_attributes REFERENCING NEW TABLE AS changed OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rules_to_grade();

-- Categories that were moved, with their descendants, inherit other rules.
CREATE FUNCTION note_moved_categories_to_grade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products_to_grade (category_id)
    SELECT changed.category_id FROM changed JOIN before USING (category_id) WHERE changed.path <> before.path;
    RETURN NULL;
END $$;
CREATE TRIGGER grade_update AFTER UPDATE ON categories REFERENCING NEW TABLE AS changed OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION note_moved_categories_to_grade();

INSERT INTO products_to_grade (product_id) SELECT product_id FROM products WHERE status <> 'retired' ORDER BY product_id;

COMMENT ON TABLE products_to_grade IS 'Products, and categories of products, whose quality may have changed since it was computed';
COMMENT ON COLUMN products_to_grade.with_descendants IS 'The categories below it, too';
COMMENT ON COLUMN products_to_grade.after_product IS 'Products of the category up to this one are graded';
COMMENT ON TABLE product_quality IS 'Quality of drafts and products on sale; retired ones have none';
COMMENT ON COLUMN product_quality.points IS '100 without a fault; grades are ranges of points';
COMMENT ON COLUMN product_quality.findings IS 'Faults with the points that they cost, and what they are about';
COMMENT ON COLUMN product_quality.duplicates IS 'Other products that may be the same one, some of them';
COMMENT ON COLUMN product_quality.title_bands IS 'Hashes of parts of the names; products that share one may have like names';
COMMENT ON TABLE category_prices IS 'Level of the lowest prices of products in a category, measured now and then';
COMMENT ON COLUMN category_prices.median IS 'Of the natural logarithms of prices in minor units';
COMMENT ON COLUMN category_prices.deviation IS 'Median of the absolute deviations from the median';
COMMENT ON TABLE product_quality_days IS 'Products by grade at the end of each day, and so far today';
COMMENT ON COLUMN product_quality_days.root IS 'Topmost category; empty for products without a category';
COMMENT ON COLUMN product_quality_days.points IS 'Sum of the points of these products';

COMMENT ON TABLE visits_to_count IS 'Views, cart lines and refused orders that a gateway has counted within seconds and that are not in the sums of sales yet';
COMMENT ON COLUMN sales_by_minute.figure IS 'What happened: viewed, carted, sold_out (refused orders), accepted, lapsed, recovered, paid, cancelled, delivered, requested, withdrawn, received, refunded';
