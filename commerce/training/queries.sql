-- Training. Whoever changes attempts of a person holds the lock of that person first.

-- name: list_published
-- The published versions of articles, by language.
SELECT article_id, language, version, title FROM article_versions
WHERE article_id = ANY ($1) AND status = 'published' ORDER BY article_id, language DESC;

-- name: lock_published
-- Nobody publishes another version of the article until the transaction ends.
SELECT version FROM article_versions WHERE article_id = $1 AND language = $2 AND status = 'published' FOR SHARE;

-- name: put_reading
INSERT INTO required_readings (article_id, roles, changed_at, changed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (article_id) DO UPDATE SET roles = EXCLUDED.roles, changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by
WHERE required_readings.roles <> EXCLUDED.roles;

-- name: delete_reading
DELETE FROM required_readings WHERE article_id = $1;

-- name: has_article
SELECT EXISTS (SELECT FROM articles WHERE article_id = $1);

-- name: list_readings
-- Those of any of the roles, or with null all.
SELECT {required_readings} FROM required_readings WHERE $1::text[] IS NULL OR roles && $1 ORDER BY article_id;

-- name: add_acknowledgement
INSERT INTO reading_acknowledgements (person, article_id, language, version, acknowledged_at)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING;

-- name: list_acknowledgements
SELECT article_id, language, version FROM reading_acknowledgements WHERE person = $1 AND article_id = ANY ($2);

-- name: lock_quiz
-- A second creation of the code waits until the first one ends.
SELECT pg_advisory_xact_lock(hashtextextended('floodgate quiz ' || $1, 0));

-- name: get_quiz
SELECT {quizzes} FROM quizzes WHERE code = $1;

-- name: list_quizzes
-- All, or those of articles.
SELECT {quizzes} FROM quizzes WHERE $1::text[] IS NULL OR article_id = ANY ($1) ORDER BY code;

-- name: put_quiz
INSERT INTO quizzes (code, article_id, questions, pass_percent, attempts, pause_hours, minutes, valid_days, grace_days, changed_at, changed_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (code) DO UPDATE SET questions = EXCLUDED.questions, pass_percent = EXCLUDED.pass_percent, attempts = EXCLUDED.attempts,
    pause_hours = EXCLUDED.pause_hours, minutes = EXCLUDED.minutes, valid_days = EXCLUDED.valid_days,
    grace_days = EXCLUDED.grace_days, changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by;

-- name: get_questions
-- The last revision for a version of the article.
SELECT revision, questions FROM quiz_versions WHERE code = $1 AND language = $2 AND article_version = $3
ORDER BY revision DESC LIMIT 1;

-- name: get_revision
SELECT questions FROM quiz_versions WHERE code = $1 AND language = $2 AND article_version = $3 AND revision = $4;

-- name: add_questions
INSERT INTO quiz_versions (code, language, article_version, revision, questions, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_versions
-- The last revision of each version.
SELECT DISTINCT ON (code, language, article_version) code, language, article_version, revision,
    jsonb_array_length(questions) AS questions, created_at
FROM quiz_versions WHERE code = ANY ($1) ORDER BY code, language, article_version DESC, revision DESC;

-- name: lock_person
SELECT pg_advisory_xact_lock(hashtextextended('floodgate training ' || $1, 0));

-- name: end_expired
UPDATE quiz_attempts SET status = 'expired' WHERE person = $1 AND status = 'open' AND expires_at <= $2;

-- name: find_open
SELECT attempt_id, code, language, article_version FROM quiz_attempts WHERE person = $1 AND status = 'open';

-- name: end_outdated
UPDATE quiz_attempts SET status = 'outdated' WHERE attempt_id = $1;

-- name: list_failures
-- Failed and expired attempts since the last that was passed, the last first.
SELECT begun_at, coalesce(submitted_at, expires_at) AS ended_at FROM quiz_attempts failed
WHERE person = $1 AND code = $2 AND status IN ('submitted', 'expired') AND NOT is_passed
  AND NOT EXISTS (SELECT FROM quiz_attempts passed WHERE passed.person = $1 AND passed.code = $2 AND passed.is_passed
                  AND passed.begun_at > failed.begun_at)
ORDER BY begun_at DESC LIMIT 20;

-- name: add_attempt
INSERT INTO quiz_attempts (attempt_id, person, roles, code, language, article_version, revision, seed, question_count,
                           pass_percent, status, begun_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'open', $11, $12);

-- name: get_attempt
SELECT {quiz_attempts}, article_id, valid_days FROM quiz_attempts JOIN quizzes USING (code)
WHERE attempt_id = $1 AND person = $2;

-- name: submit_attempt
UPDATE quiz_attempts SET status = 'submitted', submitted_at = $2, answers = $3, wrong = $4, is_passed = $5, certificate_until = $6
WHERE attempt_id = $1;

-- name: list_certificates
-- A certificate ends early when a newer version of the article has questions and the days of grace are over.
WITH certificates AS (
    SELECT attempt_id, person, roles, code, article_id, language, article_version, submitted_at AS passed_at, certificate_until,
           least(certificate_until, newer_questions.first_at + grace_days * interval '1 day') AS valid_until,
           newer_questions.first_at IS NOT NULL AS is_outdated
    FROM quiz_attempts attempt JOIN quizzes USING (code)
    LEFT JOIN LATERAL (SELECT min(created_at) AS first_at FROM quiz_versions newer
                       WHERE newer.code = attempt.code AND newer.language = attempt.language
                         AND newer.article_version > attempt.article_version) newer_questions ON true
    WHERE is_passed AND ($1::text IS NULL OR person = $1) AND ($2::text IS NULL OR $2 = ANY (roles))
      AND ($3::text[] IS NULL OR code = ANY ($3)) AND ($4::uuid IS NULL OR attempt_id > $4))
SELECT {certificates}, valid_until > $6 AS is_valid FROM certificates
WHERE ($5::timestamptz IS NULL OR valid_until < $5) AND (NOT $7 OR valid_until > $6)
ORDER BY attempt_id LIMIT $8;
