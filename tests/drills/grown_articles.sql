-- Ten thousand articles, each published in two languages with an older version, and readers who rate them.
INSERT INTO articles (article_id, version, audience, owner, review_by, reasons, skus, categories, change_no, created_at, changed_at, changed_by)
SELECT 'article-' || n, 4, CASE n % 4 WHEN 0 THEN 'internal' ELSE 'public' END, 'support-lead', '2027-01-01'::date + n % 300, ARRAY['defective'],
       ARRAY['sku-' || n], '{{}}', n + 1, '{now}', '{now}', 'staff bea'
FROM generate_series(0, 9999) AS n;
INSERT INTO article_versions (article_id, language, version, status, title, search_words, body, author, created_at, reviewer, published_at, retired_by, retired_at)
SELECT article_id, language, number, CASE number WHEN 1 THEN 'retired' ELSE 'published' END, 'about ' || article_id, '{{}}', repeat('words of it ', 100),
       'staff ann', '{now}', 'staff bea', '{now}', CASE number WHEN 1 THEN 'staff bea' END, CASE number WHEN 1 THEN '{now}'::timestamptz END
FROM articles, unnest(ARRAY['zh', 'en']) AS language, generate_series(1, 2) AS number;
UPDATE article_changes SET change_no = 10000;
INSERT INTO article_usage (article_id, clicks, helped, not_helped) SELECT article_id, 10, 5, 1 FROM articles;
INSERT INTO article_votes (article_id, voter, day, vote, voted_at)
SELECT 'article-' || n % 1000, decode(md5(n::text), 'hex'), at::date, 'feedback', at FROM fill.orders WHERE n % 10 = 1;
INSERT INTO missed_searches (language, query, searches, first_at, searched_at)
SELECT 'en', 'query ' || n, 1 + n % 7, '{now}', '{now}'::timestamptz - n * interval '1 minute' FROM generate_series(1, 10000) AS n;
