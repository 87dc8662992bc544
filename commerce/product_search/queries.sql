-- The index of products. Parameters of searches: $1 the text, $2 the filters, both queries of terms; $3 and $4 the range of
-- prices; $5 a condition on numbers, $6 a bit per available product. NULL is no condition. They are planned with their values.

-- name: begin_search
-- For the transaction of one search.
SELECT set_config('statement_timeout', $1, true), set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: find_by_score
-- The best of the first $7 products that fit. $8 and $9 are the weights of words and their queries.
WITH found AS MATERIALIZED (
    SELECT product_no, title FROM product_search
    WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
      AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
      AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
      AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
      AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
    LIMIT $7
), scored AS (
    SELECT product_no, (
        SELECT coalesce(sum(word.weight * ts_rank('{0.1, 0.3, 0.6, 1}', title, word.query)), 0)
        FROM unnest($8::float8[], $9::text[]::tsquery[]) AS word (weight, query)) AS key
    FROM found
), best AS (
    SELECT product_no, key FROM scored
    WHERE $10::float8 IS NULL OR key < $10 OR (key = $10 AND product_no < $11)
    ORDER BY key DESC, product_no DESC LIMIT $12
)
SELECT {hits}, key FROM best JOIN product_search AS hits USING (product_no) ORDER BY key DESC, product_no DESC;

-- name: find_cheapest
SELECT {hits}, min_minor::float8 AS key FROM product_search AS hits
WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
  AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
  AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
  AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
  AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
  AND ($7::bigint IS NULL OR min_minor > $7 OR (min_minor = $7 AND product_no < $8))
ORDER BY min_minor, product_no DESC LIMIT $9;

-- name: find_dearest
SELECT {hits}, max_minor::float8 AS key FROM product_search AS hits
WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
  AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
  AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
  AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
  AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
  AND ($7::bigint IS NULL OR max_minor < $7 OR (max_minor = $7 AND product_no < $8))
ORDER BY max_minor DESC, product_no DESC LIMIT $9;

-- name: find_newest
SELECT {hits}, product_no::float8 AS key FROM product_search AS hits
WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
  AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
  AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
  AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
  AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
  AND ($7::bigint IS NULL OR product_no < $7) AND ($8::bigint IS NULL OR product_no < $8)
ORDER BY product_no DESC LIMIT $9;

-- name: count_found
-- Up to $7.
SELECT count(*) FROM (
    SELECT FROM product_search
    WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
      AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
      AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
      AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
      AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
    LIMIT $7) AS found;

-- name: count_facets
-- Of the first $7 products that fit; of the fields $8 if given; of the children of category $9 or the roots. $10 has the bits
-- of available products to count. At most $11 fields, with $12 values each.
WITH found AS MATERIALIZED (
    SELECT product_no, filters, currency, min_minor, max_minor, numbers FROM product_search
    WHERE is_listed AND ($1::text IS NULL OR document @@ $1::text::tsquery)
      AND ($2::text IS NULL OR filters @@ $2::text::tsquery)
      AND ($3::bigint IS NULL OR EXISTS (SELECT FROM unnest(prices) AS price WHERE price BETWEEN $3 AND $4))
      AND ($5::text IS NULL OR numbers @@ $5::text::jsonpath)
      AND ($6::bytea IS NULL OR CASE WHEN product_no < length($6) * 8 THEN get_bit($6, product_no) = 1 ELSE false END)
    LIMIT $7
), counted AS (
    SELECT split_part(lexeme, '=', 1) AS field, substr(lexeme, strpos(lexeme, '=') + 1) AS value, products
    FROM (SELECT lexeme, count(*) AS products
          FROM found CROSS JOIN LATERAL unnest(tsvector_to_array(filters)) AS lexeme
          WHERE lexeme LIKE '%=%' GROUP BY lexeme) AS lexemes
), ranked AS (
    SELECT field, value, products, row_number() OVER (PARTITION BY field ORDER BY products DESC, value) AS place,
           max(products) OVER (PARTITION BY field) AS most
    FROM counted
    WHERE field <> '*currency' AND ($8::text[] IS NULL OR field = ANY ($8))
      AND (field <> '*category' OR value IN (
          SELECT category_id FROM categories WHERE ($9::text IS NULL AND parent_id IS NULL) OR parent_id = $9))
), chosen AS (
    SELECT field, value, products, place, dense_rank() OVER (ORDER BY left(field, 1) <> '*', most DESC, field) AS field_no
    FROM ranked
)
SELECT field, value, products, NULL::float8 AS low, NULL::float8 AS high FROM chosen
WHERE field_no <= $11 AND place <= $12
UNION ALL
SELECT '*price', currency, count(*), min(min_minor)::float8, max(max_minor)::float8 FROM found GROUP BY currency
UNION ALL
SELECT '*available', 'true', count(*) FILTER (
           WHERE CASE WHEN product_no < length($10::bytea) * 8 THEN get_bit($10::bytea, product_no) = 1 ELSE false END), NULL, NULL
FROM found WHERE $10::bytea IS NOT NULL HAVING count(*) > 0
UNION ALL
SELECT key, '', count(*), min((value ->> 0)::float8), max((value ->> -1)::float8)
FROM found CROSS JOIN LATERAL jsonb_each(numbers) GROUP BY key
ORDER BY 1, 3 DESC, 2;

-- name: find_facet_parent
-- The category itself if it has children, else the one above it.
SELECT CASE WHEN EXISTS (SELECT FROM categories AS child WHERE child.parent_id = category.category_id)
            THEN category_id ELSE parent_id END
FROM categories AS category WHERE category_id = $1;

-- name: choose_query
-- The number of the first query that finds a product.
SELECT place FROM unnest($1::text[]) WITH ORDINALITY AS input (query, place)
WHERE EXISTS (SELECT FROM product_search WHERE document @@ input.query::tsquery) ORDER BY place LIMIT 1;

-- name: list_known
-- The numbers of the queries that find a product.
SELECT place FROM unnest($1::text[]) WITH ORDINALITY AS input (query, place)
WHERE EXISTS (SELECT FROM product_search WHERE document @@ input.query::tsquery) ORDER BY place;

-- name: count_products_of_terms
SELECT term, products FROM product_search_terms WHERE term = ANY ($1);

-- name: count_listed
SELECT listed_products FROM product_search_state;

-- name: list_near
-- Terms that have one of these rests.
SELECT term, spelling, products FROM product_search_terms WHERE rests && $1::text[] AND rests IS NOT NULL
ORDER BY products DESC, term LIMIT $2;

-- name: suggest_products
SELECT product_id, names FROM product_search WHERE title @@ $1::text::tsquery LIMIT $2;

-- name: suggest_categories
-- Categories with a name that begins like $1; those with the most products first.
SELECT category_id, language, name
FROM category_names JOIN categories USING (category_id)
JOIN product_search_terms ON term = '*category=' || category_id
WHERE lower(name) LIKE $1 AND status = 'active' ORDER BY products DESC, category_id, language LIMIT $2;

-- name: list_changed
-- For followers of the index: rows after a change, in the sequence of their changes.
SELECT product_no, change_no, is_listed, skus FROM product_search WHERE change_no > $1 ORDER BY change_no LIMIT $2;

-- name: list_numbers
-- Numbers of the listed products that have these SKUs.
SELECT sku, product_no FROM variants JOIN product_search USING (product_id) WHERE sku = ANY ($1) AND is_listed;

-- name: read_change
SELECT change_no FROM product_search_state;

-- name: read_names
-- Of categories $1, attributes $2 and choices $3, by language.
SELECT 'category' AS kind, category_id AS key, jsonb_object_agg(language, name)::text AS names, NULL AS unit
FROM category_names WHERE category_id = ANY ($1) GROUP BY category_id
UNION ALL
SELECT 'attribute', attribute_id, jsonb_object_agg(language, name)::text, min(unit)
FROM attribute_names JOIN attributes USING (attribute_id) WHERE attribute_id = ANY ($2) GROUP BY attribute_id
UNION ALL
SELECT 'choice', choice_id, jsonb_object_agg(language, name)::text, NULL
FROM choice_names WHERE choice_id = ANY ($3) GROUP BY choice_id;
