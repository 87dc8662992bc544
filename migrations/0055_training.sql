-- Training of staff: required reading, quizzes about versions of articles, attempts. A passed attempt is a certificate.

CREATE TABLE required_readings (
    article_id text PRIMARY KEY REFERENCES articles,
    roles      text[] NOT NULL CHECK (cardinality(roles) BETWEEN 1 AND 20),
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
);

CREATE TABLE reading_acknowledgements (
    person          text NOT NULL CHECK (length(person) BETWEEN 1 AND 64),
    article_id      text NOT NULL,
    language        text NOT NULL,
    version         integer NOT NULL,
    acknowledged_at timestamptz NOT NULL,
    PRIMARY KEY (person, article_id, language, version),
    FOREIGN KEY (article_id, language, version) REFERENCES article_versions
);

CREATE TABLE quizzes (
    code         text PRIMARY KEY CHECK (code ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    article_id   text NOT NULL REFERENCES articles,
    questions    smallint NOT NULL CHECK (questions BETWEEN 1 AND 50),
    pass_percent smallint NOT NULL CHECK (pass_percent BETWEEN 1 AND 100),
    attempts     smallint NOT NULL CHECK (attempts BETWEEN 1 AND 20),
    pause_hours  smallint NOT NULL CHECK (pause_hours BETWEEN 1 AND 720),
    minutes      smallint NOT NULL CHECK (minutes BETWEEN 1 AND 1440),
    valid_days   smallint NOT NULL CHECK (valid_days BETWEEN 1 AND 3650),
    grace_days   smallint NOT NULL CHECK (grace_days BETWEEN 0 AND 365),
    changed_at   timestamptz NOT NULL,
    changed_by   text NOT NULL
);
CREATE INDEX quizzes_of_article ON quizzes (article_id);

CREATE TABLE quiz_versions (
    code            text NOT NULL REFERENCES quizzes,
    language        text NOT NULL CHECK (language IN ('zh', 'en')),
    article_version integer NOT NULL CHECK (article_version > 0),
    revision        integer NOT NULL CHECK (revision > 0),
    questions       jsonb NOT NULL CHECK (jsonb_typeof(questions) = 'array' AND jsonb_array_length(questions) BETWEEN 1 AND 200),
    created_at      timestamptz NOT NULL,
    created_by      text NOT NULL,
    PRIMARY KEY (code, language, article_version, revision)
);

-- What an attempt was asked follows from its seed and these questions.
CREATE FUNCTION refuse_changed_questions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the questions of a quiz never change: add a revision';
END $$;
CREATE TRIGGER quiz_versions_immutable BEFORE UPDATE ON quiz_versions FOR EACH ROW EXECUTE FUNCTION refuse_changed_questions();

CREATE TABLE quiz_attempts (
    attempt_id        uuid PRIMARY KEY,
    person            text NOT NULL CHECK (length(person) BETWEEN 1 AND 64),
    roles             text[] NOT NULL,
    code              text NOT NULL,
    language          text NOT NULL,
    article_version   integer NOT NULL,
    revision          integer NOT NULL,
    seed              bigint NOT NULL,
    question_count    smallint NOT NULL CHECK (question_count > 0),
    pass_percent      smallint NOT NULL CHECK (pass_percent BETWEEN 1 AND 100),
    status            text NOT NULL CHECK (status IN ('open', 'submitted', 'expired', 'outdated')),
    begun_at          timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL CHECK (expires_at > begun_at),
    submitted_at      timestamptz,
    answers           jsonb CHECK (jsonb_typeof(answers) = 'array'),
    wrong             smallint[],
    is_passed         boolean NOT NULL DEFAULT false,
    certificate_until timestamptz,
    FOREIGN KEY (code, language, article_version, revision) REFERENCES quiz_versions,
    CHECK ((status = 'submitted') = (submitted_at IS NOT NULL)),
    CHECK ((submitted_at IS NULL) = (answers IS NULL)),
    CHECK ((submitted_at IS NULL) = (wrong IS NULL)),
    CHECK (is_passed = (certificate_until IS NOT NULL)),
    CHECK (NOT is_passed OR (wrong IS NOT NULL AND cardinality(wrong) < question_count
        AND (question_count - cardinality(wrong)) * 100 >= pass_percent * question_count))
);
CREATE UNIQUE INDEX quiz_attempts_open ON quiz_attempts (person) WHERE status = 'open';
CREATE INDEX quiz_attempts_of_person ON quiz_attempts (person, code, begun_at);
CREATE INDEX quiz_attempts_passed ON quiz_attempts (attempt_id) WHERE is_passed;

COMMENT ON TABLE required_readings IS 'Articles that roles of staff must read, in each published version';
COMMENT ON TABLE reading_acknowledgements IS 'Who has read which version of an article';
COMMENT ON COLUMN reading_acknowledgements.person IS 'The subject of the staff token';
COMMENT ON TABLE quizzes IS 'Quizzes about articles; a passed one is a certificate of this code';
COMMENT ON COLUMN quizzes.questions IS 'Questions that an attempt draws';
COMMENT ON COLUMN quizzes.attempts IS 'Failed attempts after which a person pauses for pause_hours';
COMMENT ON COLUMN quizzes.grace_days IS 'Days for which certificates of an older version stay valid once a newer one has questions';
COMMENT ON TABLE quiz_versions IS 'Questions about a version of an article; they never change, a revision follows';
COMMENT ON COLUMN quiz_versions.questions IS 'Text, kind, options and numbers of the right ones';
COMMENT ON TABLE quiz_attempts IS 'Attempts of quizzes; one that is passed is the certificate';
COMMENT ON COLUMN quiz_attempts.roles IS 'Roles of the person when the attempt began';
COMMENT ON COLUMN quiz_attempts.seed IS 'Draws and shuffles the questions of this revision';
COMMENT ON COLUMN quiz_attempts.pass_percent IS 'As of the beginning of the attempt';
COMMENT ON COLUMN quiz_attempts.answers IS 'Numbers of the chosen options by question, as they were shown';
COMMENT ON COLUMN quiz_attempts.wrong IS 'Numbers of the questions that were not answered right';
