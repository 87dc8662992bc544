-- What the one writer of the index does. It holds the lock of the row of `product_search_state`.

-- name: lock_state
SELECT change_no, category_change_no FROM product_search_state FOR UPDATE;

-- name: raise_state
UPDATE product_search_state
SET change_no = change_no + $1, listed_products = greatest(0, listed_products + $2);

-- name: set_category_change
UPDATE product_search_state SET category_change_no = $1;

-- name: take_changed_products
-- The oldest $1 entries, and those of the same products among the oldest $2: an import has several per product. Each
-- product is read after its entries, so what changes later has another entry.
WITH oldest AS MATERIALIZED (
    SELECT entry_no, product_id FROM products_to_index ORDER BY entry_no LIMIT $2
)
DELETE FROM products_to_index WHERE entry_no = ANY(ARRAY(
    SELECT entry_no FROM oldest
    WHERE product_id IN (SELECT product_id FROM oldest ORDER BY entry_no LIMIT $1)))
RETURNING entry_no, product_id;

-- name: measure_queue
SELECT count(*), min(noted_at) FROM products_to_index;

-- name: has_changes
SELECT EXISTS (SELECT FROM products_to_index) OR EXISTS (
    SELECT FROM category_changes WHERE change_no > (SELECT category_change_no FROM product_search_state));

-- name: list_category_changes
SELECT change_no, kind, category_id, attribute_id FROM category_changes WHERE change_no > $1 ORDER BY change_no LIMIT $2;

-- name: note_products_of_categories
-- Of the categories and their descendants.
INSERT INTO products_to_index (product_id)
SELECT product_id FROM products
WHERE category_id = ANY (ARRAY(SELECT category_id FROM categories WHERE path && $1::text[]))
ORDER BY product_id;

-- name: note_products_with_attributes
INSERT INTO products_to_index (product_id)
SELECT product_id FROM product_search WHERE filters @@ $1::text::tsquery ORDER BY product_id;

-- name: note_products
-- A part of all products, after an id, in the place of their entries: none is indexed twice.
WITH part AS MATERIALIZED (
    SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2
), replaced AS (
    DELETE FROM products_to_index WHERE product_id IN (SELECT product_id FROM part)
)
INSERT INTO products_to_index (product_id) SELECT product_id FROM part ORDER BY product_id RETURNING product_id;

-- name: read_attribute_names
SELECT attribute_id, kind, ARRAY(SELECT name FROM attribute_names AS named
                                 WHERE named.attribute_id = attributes.attribute_id ORDER BY language) AS names
FROM attributes WHERE attribute_id = ANY ($1);

-- name: read_choice_names
SELECT choice_id, array_agg(name ORDER BY language) AS names FROM choice_names WHERE choice_id = ANY ($1) GROUP BY choice_id;

-- name: read_indexed
SELECT product_id, is_listed, tsvector_to_array(title) AS title, tsvector_to_array(filters) AS filters
FROM product_search WHERE product_id = ANY ($1);

-- name: update_products
-- Those that differ.
UPDATE product_search AS old
SET change_no = new.change_no, is_listed = new.is_listed, names = new.names, category_id = new.category_id,
    brand = new.brand, currency = new.currency, prices = new.prices, min_minor = new.prices[1],
    max_minor = new.prices[cardinality(new.prices)], skus = new.skus, numbers = new.numbers,
    filters = new.filters::tsvector, title = new.title::tsvector, document = new.document::tsvector
FROM jsonb_to_recordset($1::jsonb) AS new (
    product_id text, change_no bigint, is_listed boolean, names jsonb, category_id text, brand text, currency text,
    prices bigint[], skus text[], numbers jsonb, filters text, title text, document text)
WHERE old.product_id = new.product_id
  AND (old.is_listed, old.names, old.category_id, old.brand, old.currency, old.prices, old.skus, old.numbers,
       old.filters, old.title, old.document)
      IS DISTINCT FROM (new.is_listed, new.names, new.category_id, new.brand, new.currency, new.prices, new.skus,
                        new.numbers, new.filters::tsvector, new.title::tsvector, new.document::tsvector);

-- name: insert_products
-- Listed ones that are new, numbered in the sequence of their changes.
INSERT INTO product_search (product_id, change_no, is_listed, names, category_id, brand, currency, prices, min_minor,
                            max_minor, skus, numbers, filters, title, document)
SELECT product_id, change_no, is_listed, names, category_id, brand, currency, prices, prices[1],
       prices[cardinality(prices)], skus, numbers, filters::tsvector, title::tsvector, document::tsvector
FROM jsonb_to_recordset($1::jsonb) AS new (
    product_id text, change_no bigint, is_listed boolean, names jsonb, category_id text, brand text, currency text,
    prices bigint[], skus text[], numbers jsonb, filters text, title text, document text)
WHERE is_listed AND NOT EXISTS (SELECT FROM product_search AS old WHERE old.product_id = new.product_id)
ORDER BY change_no;

-- name: raise_terms
INSERT INTO product_search_terms AS old (term, products, spelling, rests)
SELECT term, products, spelling, rests
FROM jsonb_to_recordset($1::jsonb) AS new (term text, products integer, spelling text, rests text[])
ORDER BY term
ON CONFLICT (term) DO UPDATE SET products = old.products + excluded.products,
    spelling = coalesce(old.spelling, excluded.spelling), rests = coalesce(old.rests, excluded.rests);

-- name: lower_terms
UPDATE product_search_terms AS old SET products = greatest(0, old.products - new.products)
FROM unnest($1::text[], $2::integer[]) AS new (term, products) WHERE old.term = new.term;

-- name: delete_unused_terms
DELETE FROM product_search_terms WHERE term = ANY ($1) AND products = 0;
