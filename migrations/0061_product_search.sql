-- Products as customers find them. Whoever changes products, texts or variants adds a row of ids in the same transaction, by
-- a trigger; a worker reads what they are now and writes one row per product, with all that a search needs.

CREATE TABLE product_search (
    product_no  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id  text NOT NULL UNIQUE REFERENCES products,
    change_no   bigint NOT NULL UNIQUE,
    is_listed   boolean NOT NULL,
    names       jsonb NOT NULL CHECK (jsonb_typeof(names) = 'object'),
    category_id text REFERENCES categories,
    brand       text,
    currency    text,
    prices      bigint[] NOT NULL,
    min_minor   bigint,
    max_minor   bigint,
    skus        text[] NOT NULL,
    numbers     jsonb NOT NULL CHECK (jsonb_typeof(numbers) = 'object'),
    filters     tsvector NOT NULL,
    title       tsvector NOT NULL,
    document    tsvector NOT NULL,
    CHECK (is_listed = (currency IS NOT NULL) AND is_listed = (min_minor IS NOT NULL) AND is_listed = (max_minor IS NOT NULL)),
    CHECK (is_listed = (cardinality(prices) > 0) AND is_listed = (cardinality(skus) > 0))
);
CREATE INDEX product_search_by_text ON product_search USING gin (document);
CREATE INDEX product_search_by_title ON product_search USING gin (title);
CREATE INDEX product_search_by_filter ON product_search USING gin (filters);
CREATE INDEX product_search_newest ON product_search (product_no DESC) WHERE is_listed;
CREATE INDEX product_search_cheapest ON product_search (min_minor, product_no DESC) WHERE is_listed;
CREATE INDEX product_search_dearest ON product_search (max_minor DESC, product_no DESC) WHERE is_listed;

CREATE TABLE product_search_terms (
    term     text PRIMARY KEY,
    products integer NOT NULL CHECK (products >= 0),
    spelling text,
    rests    text[] CHECK ((rests IS NULL) = (spelling IS NULL))
);
CREATE INDEX product_search_terms_by_rest ON product_search_terms USING gin (rests) WHERE rests IS NOT NULL;

-- The lock of this row lets one worker write at a time, so a later state never gives way to an earlier one.
CREATE TABLE product_search_state (
    is_only_row        boolean PRIMARY KEY CHECK (is_only_row),
    change_no          bigint NOT NULL,
    category_change_no bigint NOT NULL,
    listed_products    integer NOT NULL CHECK (listed_products >= 0)
);
INSERT INTO product_search_state SELECT true, 0, coalesce(max(change_no), 0), 0 FROM category_changes;

CREATE TABLE products_to_index (
    entry_no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id text NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION note_changed_products() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO products_to_index (product_id) SELECT DISTINCT product_id FROM changed;
    RETURN NULL;
END $$;
DO $$
DECLARE source text;
BEGIN
    FOREACH source IN ARRAY ARRAY['products', 'product_texts', 'variants'] LOOP
        EXECUTE format('CREATE TRIGGER index_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS changed '
            'FOR EACH STATEMENT EXECUTE FUNCTION note_changed_products()', source);
        EXECUTE format('CREATE TRIGGER index_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed '
            'FOR EACH STATEMENT EXECUTE FUNCTION note_changed_products()', source);
        EXECUTE format('CREATE TRIGGER index_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS changed '
            'FOR EACH STATEMENT EXECUTE FUNCTION note_changed_products()', source);
    END LOOP;
END $$;
-- A variant that moves leaves a product.
CREATE TRIGGER index_moved AFTER UPDATE ON variants REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_products();

-- The oldest first: numbers follow the age of products.
INSERT INTO products_to_index (product_id) SELECT product_id FROM products ORDER BY created_at, product_id;

-- Names of categories are completed while a customer types.
CREATE INDEX category_names_by_start ON category_names (lower(name) text_pattern_ops);

COMMENT ON FUNCTION note_changed_products IS 'Adds the changed products to products_to_index';
COMMENT ON TABLE product_search IS 'Products as searches find them, a row per product; written by one worker at a time';
COMMENT ON COLUMN product_search.product_no IS 'Number of the product in searches, as long as it exists';
COMMENT ON COLUMN product_search.change_no IS 'Place in the sequence of changes of this table';
COMMENT ON COLUMN product_search.is_listed IS 'On sale, with variants; the row of any other product is empty';
COMMENT ON COLUMN product_search.names IS 'Names by language';
COMMENT ON COLUMN product_search.prices IS 'List prices of its variants in minor units, each once, sorted';
COMMENT ON COLUMN product_search.numbers IS 'Lists of numbers by attribute_id';
COMMENT ON COLUMN product_search.filters IS 'Category path, brand, currency, attributes and their values, as name=value';
COMMENT ON COLUMN product_search.title IS 'Terms of names (A), search words, brand and SKUs (B), categories and attributes (C)';
COMMENT ON COLUMN product_search.document IS 'Terms of title and descriptions';
COMMENT ON TABLE product_search_terms IS 'Terms of the titles of listed products, each with the number of products';
COMMENT ON COLUMN product_search_terms.spelling IS 'A word of the products of which it is the stem, if mistyped ones are corrected';
COMMENT ON COLUMN product_search_terms.rests IS 'The term, and what is left of it without one letter';
COMMENT ON TABLE product_search_state IS 'One row: the last change of product_search and of the categories that it follows';
COMMENT ON TABLE products_to_index IS 'Changed products that product_search does not have as they are';
