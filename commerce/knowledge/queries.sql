-- Articles and their versions. Whoever changes one locks it first, then the row of `article_changes`.

-- name: lock_article
SELECT {articles} FROM articles WHERE article_id = $1 FOR UPDATE;

-- name: lock_new_article
-- A second creation of the id waits until the first one ends.
SELECT pg_advisory_xact_lock(hashtextextended('article ' || $1, 0));

-- name: count_articles
SELECT count(*) FROM articles;

-- name: next_change
-- Its lock is kept until the commit, so nobody reads a later change before an earlier one.
UPDATE article_changes SET change_no = change_no + 1 RETURNING change_no;

-- name: insert_article
INSERT INTO articles (article_id, version, audience, owner, review_by, reasons, skus, categories, change_no,
                      created_at, changed_at, changed_by)
VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10);

-- name: update_terms
UPDATE articles SET version = version + 1, audience = $2, owner = $3, review_by = $4, reasons = $5, skus = $6,
    categories = $7, change_no = $8, changed_at = $9, changed_by = $10
WHERE article_id = $1;

-- name: touch_article
UPDATE articles SET version = version + 1, change_no = $2, changed_at = $3, changed_by = $4 WHERE article_id = $1;

-- name: insert_version
INSERT INTO article_versions (article_id, language, version, status, title, search_words, body, author, created_at)
SELECT $1, $2, coalesce(max(version), 0) + 1, 'draft', $3, $4, $5, $6, $7
FROM article_versions WHERE article_id = $1 AND language = $2
RETURNING version;

-- name: get_status
SELECT status, author FROM article_versions WHERE article_id = $1 AND language = $2 AND version = $3;

-- name: set_in_review
UPDATE article_versions SET status = 'in_review' WHERE article_id = $1 AND language = $2 AND version = $3;

-- name: set_published
UPDATE article_versions SET status = 'published', reviewer = $4, published_at = $5
WHERE article_id = $1 AND language = $2 AND version = $3;

-- name: set_retired
-- One version, or all of a status with a null version.
UPDATE article_versions SET status = 'retired', retired_by = $5, retired_at = $6
WHERE article_id = $1 AND language = $2 AND version = coalesce($3, version) AND status = ANY ($4);

-- name: has_published
SELECT EXISTS (SELECT FROM article_versions WHERE article_id = $1 AND status = 'published');

-- name: get_article
SELECT {articles}, coalesce(clicks, 0) AS clicks, coalesce(helped, 0) AS helped, coalesce(not_helped, 0) AS not_helped
FROM articles LEFT JOIN article_usage USING (article_id) WHERE article_id = $1;

-- name: list_articles
-- Of those past the day of their review, only published ones count.
SELECT {articles}, coalesce(clicks, 0) AS clicks, coalesce(helped, 0) AS helped, coalesce(not_helped, 0) AS not_helped
FROM articles LEFT JOIN article_usage USING (article_id)
WHERE articles.article_id > $1 AND ($3::date IS NULL OR review_by < $3)
  AND ($4::text IS NULL OR EXISTS (SELECT FROM article_versions version
                                   WHERE version.article_id = articles.article_id AND version.status = $4))
ORDER BY articles.article_id LIMIT $2;

-- name: list_versions
SELECT article_id, {article_versions} FROM article_versions
WHERE article_id = ANY ($1) AND (status <> 'retired' OR $2) ORDER BY article_id, language DESC, version DESC;

-- name: get_version
SELECT {article_versions}, search_words, body FROM article_versions WHERE article_id = $1 AND language = $2 AND version = $3;

-- name: latest_text
-- The version that is not published yet, else the published one.
SELECT title, search_words, body FROM article_versions WHERE article_id = $1 AND language = $2 AND status <> 'retired'
ORDER BY status = 'published' LIMIT 1;

-- name: read_change
SELECT change_no FROM article_changes;

-- name: list_changed
SELECT {articles} FROM articles WHERE change_no > $1 ORDER BY change_no LIMIT $2;

-- name: list_published
SELECT article_id, language, version, published_at, title, search_words, body FROM article_versions
WHERE article_id = ANY ($1) AND status = 'published';

-- name: measure_overdue
SELECT count(*), min(review_by) FROM articles
WHERE review_by < $1 AND EXISTS (SELECT FROM article_versions version
                                 WHERE version.article_id = articles.article_id AND version.status = 'published');

-- name: add_vote
-- Counts each voter once per article, day and kind of vote. $5 to $7 are what the vote adds.
WITH counted AS (
    INSERT INTO article_votes (article_id, voter, day, vote, voted_at)
    VALUES ($1, $2, $3::timestamptz::date, $4, $3) ON CONFLICT DO NOTHING RETURNING article_id)
INSERT INTO article_usage AS total (article_id, clicks, helped, not_helped)
SELECT article_id, $5, $6, $7 FROM counted
ON CONFLICT (article_id) DO UPDATE SET clicks = total.clicks + EXCLUDED.clicks, helped = total.helped + EXCLUDED.helped,
    not_helped = total.not_helped + EXCLUDED.not_helped;

-- name: list_usage
SELECT article_id, clicks, helped, not_helped FROM article_usage;

-- name: add_misses
-- Once the list has $5 rows, only those that it has are counted further.
INSERT INTO missed_searches AS missed (language, query, searches, first_at, searched_at)
SELECT new.language, new.query, new.searches, $4, $4
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS new (language, query, searches)
WHERE (SELECT count(*) FROM missed_searches) < $5
   OR EXISTS (SELECT FROM missed_searches old WHERE old.language = new.language AND old.query = new.query)
ORDER BY new.language, new.query
ON CONFLICT (language, query) DO UPDATE SET searches = missed.searches + EXCLUDED.searches, searched_at = EXCLUDED.searched_at;

-- name: list_misses
-- The most frequent first.
SELECT {missed_searches} FROM missed_searches WHERE ($1::text IS NULL OR language = $1) ORDER BY searches DESC, searched_at DESC, query LIMIT $2;

-- name: delete_miss
DELETE FROM missed_searches WHERE language = $1 AND query = $2;
