-- name: list_index_rows
-- All that an index in memory needs of the rows after a change, in the sequence of their changes.
SELECT {hits}, change_no, is_listed, prices, numbers, tsvector_to_array(filters) AS filters,
       tsvector_to_array(document) AS terms, tsvector_to_array(ts_filter(title, ARRAY['a'::"char"])) AS terms_a,
       tsvector_to_array(ts_filter(title, ARRAY['b'::"char"])) AS terms_b, tsvector_to_array(ts_filter(title, ARRAY['c'::"char"])) AS terms_c
FROM product_search AS hits WHERE change_no > $1 ORDER BY change_no LIMIT $2;

-- name: list_category_parents
SELECT category_id, parent_id FROM categories;

-- name: read_index_version
SELECT (SELECT change_no FROM product_search_state) AS change_no, (SELECT version FROM category_tree) AS tree_version;
