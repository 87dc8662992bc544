-- A product is what customers look at; each of its variants has a SKU, which is what sales, orders and shipments know.
-- Until now each SKU was a product: it becomes a product on sale with one variant. Orders, labels and the snapshots of
-- sales read names and prices of variants, as before.

ALTER TABLE products RENAME TO variants;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'variants'::regclass AND conname LIKE 'products\_%' LOOP
        EXECUTE format('ALTER TABLE variants RENAME CONSTRAINT %I TO %I', name, 'variants' || substr(name, 9));
    END LOOP;
END $$;

CREATE TABLE products (
    product_id  text PRIMARY KEY CHECK (product_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    status      text NOT NULL CHECK (status IN ('draft', 'on_sale', 'retired')),
    category_id text REFERENCES categories,
    brand       text CHECK (length(brand) BETWEEN 1 AND 100),
    attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    options     text[] NOT NULL DEFAULT '{}' CHECK (cardinality(options) <= 3),
    version     integer NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX products_by_status ON products (status, product_id);
CREATE INDEX products_of_category ON products (category_id, product_id) WHERE category_id IS NOT NULL;

CREATE TABLE product_texts (
    product_id   text NOT NULL REFERENCES products,
    language     text NOT NULL CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$'),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description  text CHECK (length(description) BETWEEN 1 AND 5000),
    search_words text[] NOT NULL DEFAULT '{}' CHECK (cardinality(search_words) <= 50),
    PRIMARY KEY (product_id, language)
);

-- The version counts up with each change of the product and its variants, so it is the place of a change, too.
CREATE TABLE product_changes (
    product_id text NOT NULL REFERENCES products,
    version    integer NOT NULL CHECK (version > 0),
    action     text NOT NULL
        CHECK (action IN ('created', 'changed', 'published', 'retired', 'variant_added', 'variant_changed', 'moved')),
    actor      text NOT NULL,
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    diff       jsonb NOT NULL CHECK (jsonb_typeof(diff) = 'object'),
    at         timestamptz NOT NULL,
    PRIMARY KEY (product_id, version)
);

-- Names say the language themselves: one with a Chinese character is Chinese.
INSERT INTO products (product_id, status, created_at, updated_at)
SELECT sku, 'on_sale', created_at, updated_at FROM variants;
INSERT INTO product_texts (product_id, language, name)
SELECT sku, CASE WHEN name ~ '[㐀-䶿一-鿿]' THEN 'zh' ELSE 'en' END, name FROM variants;
INSERT INTO product_changes (product_id, version, action, actor, reason, diff, at)
SELECT sku, 1, 'created', 'migration', 'each SKU became a product with one variant', '{}', now() FROM variants;

ALTER TABLE variants ADD COLUMN product_id text REFERENCES products;
UPDATE variants SET product_id = sku;
ALTER TABLE variants
    ALTER COLUMN product_id SET NOT NULL,
    ADD COLUMN option_values jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(option_values) = 'object'),
    ADD COLUMN barcode text CHECK (barcode ~ '^([0-9]{8}|[0-9]{12,14})$');
-- Two variants may swap their values in one statement.
ALTER TABLE variants ADD CONSTRAINT variants_differ UNIQUE (product_id, option_values) DEFERRABLE INITIALLY IMMEDIATE;
-- A barcode of 8, 12 or 13 digits is the one of 14 with zeros before it.
CREATE UNIQUE INDEX variants_barcode ON variants (lpad(barcode, 14, '0')) WHERE barcode IS NOT NULL;

CREATE TABLE planned_prices (
    plan_id     uuid PRIMARY KEY,
    sku         text NOT NULL REFERENCES variants,
    price_minor bigint NOT NULL CHECK (price_minor BETWEEN 0 AND 1000000000000000),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    starts_at   timestamptz NOT NULL,
    status      text NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'applied', 'cancelled', 'replaced')),
    actor       text NOT NULL,
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    created_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    ended_by    text,
    end_reason  text CHECK (length(end_reason) BETWEEN 1 AND 500),
    CHECK ((status = 'planned') = (ended_at IS NULL) AND (ended_at IS NULL) = (ended_by IS NULL))
);
CREATE UNIQUE INDEX planned_prices_planned ON planned_prices (sku, starts_at) WHERE status = 'planned';
CREATE INDEX planned_prices_of_sku ON planned_prices (sku, plan_id);

CREATE TABLE price_changes (
    sku         text NOT NULL REFERENCES variants,
    change_no   bigint GENERATED ALWAYS AS IDENTITY,
    price_minor bigint NOT NULL CHECK (price_minor BETWEEN 0 AND 1000000000000000),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    actor       text NOT NULL,
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    plan_id     uuid UNIQUE REFERENCES planned_prices,
    at          timestamptz NOT NULL,
    PRIMARY KEY (sku, change_no)
);
INSERT INTO price_changes (sku, price_minor, currency, actor, reason, at)
SELECT sku, price_minor, currency, 'migration', 'the price when histories began', updated_at FROM variants;

CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot change rows of %: they are a history, to which rows are only added', TG_TABLE_NAME;
END $$;
CREATE TRIGGER product_changes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON product_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE TRIGGER price_changes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON price_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

COMMENT ON FUNCTION refuse_change_of_history IS 'Keeps histories append-only';
COMMENT ON TABLE products IS 'Products as customers see them; each has one variant or more';
COMMENT ON COLUMN products.attributes IS 'Values by attribute_id, checked against those of the category';
COMMENT ON COLUMN products.options IS 'Ids of the attributes by which the variants differ';
COMMENT ON COLUMN products.version IS 'Counts changes of the product and its variants';
COMMENT ON TABLE product_texts IS 'Name, description and search words of a product in one language';
COMMENT ON TABLE product_changes IS 'Changes of products and their variants, append-only';
COMMENT ON COLUMN product_changes.diff IS 'By field [before, after], shortened';
COMMENT ON TABLE variants IS 'Variants of products, which sales can offer; list price in minor units of the currency';
COMMENT ON COLUMN variants.name IS 'Name on orders and labels';
COMMENT ON COLUMN variants.option_values IS 'Values by attribute_id, one for each option of the product';
COMMENT ON COLUMN variants.barcode IS 'GTIN of 8, 12, 13 or 14 digits';
COMMENT ON TABLE planned_prices IS 'List prices that are to be set at a time, each by a job';
COMMENT ON TABLE price_changes IS 'List prices of variants since a time, append-only';
COMMENT ON COLUMN price_changes.plan_id IS 'Plan that set it; null if somebody did';
