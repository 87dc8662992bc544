-- The index of products: a row for each fifth order, with words of different frequency, and its terms.
INSERT INTO product_search (product_id, change_no, is_listed, names, category_id, brand, currency, prices, min_minor,
                            max_minor, skus, numbers, filters, title, document)
SELECT 'found-' || n, n, true, jsonb_build_object('en', 'Thing ' || n), 'c' || n % 400, 'b' || n % 300, 'CNY',
       ARRAY[n % 50000 + 100], n % 50000 + 100, n % 50000 + 100, ARRAY['found-' || n],
       jsonb_build_object('weight', jsonb_build_array(n % 900)),
       format('%L %L %L %L %L', '*category=root' || n % 20, '*category=c' || n % 400, '*brand=b' || n % 300,
              'color=color' || n % 40, '*currency=CNY')::tsvector,
       format('%L:1A %L:1A %L:1B', 'word' || n % 5000, 'kind' || n % 200, 'found-' || n)::tsvector,
       format('%L %L %L %L', 'word' || n % 5000, 'kind' || n % 200, 'found-' || n, 'text' || n % 9000)::tsvector
FROM generate_series(1, {orders} / 5) AS n;
INSERT INTO product_search_terms (term, products, spelling, rests)
SELECT 'term' || n, n % 1000 + 1, CASE WHEN n % 2 = 0 THEN 'term' || n END,
       CASE WHEN n % 2 = 0 THEN ARRAY['term' || n, 'erm' || n, 'trm' || n, 'tem' || n, 'ter' || n] END
FROM generate_series(1, {orders} / 10) AS n;
UPDATE product_search_state SET change_no = {orders} / 5, listed_products = {orders} / 5;
