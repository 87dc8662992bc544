-- Articles of the knowledge base, in languages and versions.

CREATE TABLE articles (
    article_id text PRIMARY KEY CHECK (article_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version    integer NOT NULL CHECK (version > 0),
    audience   text NOT NULL CHECK (audience IN ('public', 'internal')),
    owner      text NOT NULL CHECK (length(owner) BETWEEN 1 AND 200),
    review_by  date NOT NULL,
    reasons    text[] NOT NULL CHECK (cardinality(reasons) <= 50),
    skus       text[] NOT NULL CHECK (cardinality(skus) <= 1000),
    categories text[] NOT NULL CHECK (cardinality(categories) <= 50),
    change_no  bigint NOT NULL UNIQUE CHECK (change_no > 0),
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
);

CREATE TABLE article_versions (
    article_id   text NOT NULL REFERENCES articles,
    language     text NOT NULL CHECK (language IN ('zh', 'en')),
    version      integer NOT NULL CHECK (version > 0),
    status       text NOT NULL CHECK (status IN ('draft', 'in_review', 'published', 'retired')),
    title        text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    search_words text[] NOT NULL CHECK (cardinality(search_words) <= 50),
    body         text NOT NULL CHECK (length(body) BETWEEN 1 AND 50000),
    author       text NOT NULL,
    created_at   timestamptz NOT NULL,
    reviewer     text,
    published_at timestamptz,
    retired_by   text,
    retired_at   timestamptz,
    PRIMARY KEY (article_id, language, version),
    CHECK ((reviewer IS NULL) = (published_at IS NULL)),
    CHECK ((retired_by IS NULL) = (retired_at IS NULL)),
    CHECK ((status = 'retired') = (retired_at IS NOT NULL)),
    CHECK (CASE status WHEN 'published' THEN published_at IS NOT NULL WHEN 'retired' THEN true ELSE published_at IS NULL END),
    CHECK (regexp_replace(reviewer, '^(cli|staff) ', '') <> regexp_replace(author, '^(cli|staff) ', ''))
);

CREATE UNIQUE INDEX article_versions_published ON article_versions (article_id, language) WHERE status = 'published';
CREATE UNIQUE INDEX article_versions_unpublished ON article_versions (article_id, language) WHERE status IN ('draft', 'in_review');

-- The text of a version is what training and reviewers refer to.
CREATE FUNCTION refuse_changed_article() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the text of an article version never changes: add a version';
END $$;
CREATE TRIGGER article_versions_immutable BEFORE UPDATE ON article_versions FOR EACH ROW
    WHEN ((OLD.title, OLD.search_words, OLD.body, OLD.author, OLD.created_at)
          IS DISTINCT FROM (NEW.title, NEW.search_words, NEW.body, NEW.author, NEW.created_at))
    EXECUTE FUNCTION refuse_changed_article();

CREATE TABLE article_changes (
    is_only_row boolean PRIMARY KEY CHECK (is_only_row),
    change_no   bigint NOT NULL
);
INSERT INTO article_changes VALUES (true, 0);

CREATE TABLE article_usage (
    article_id  text PRIMARY KEY REFERENCES articles,
    clicks      bigint NOT NULL DEFAULT 0 CHECK (clicks >= 0),
    helped      bigint NOT NULL DEFAULT 0 CHECK (helped >= 0),
    not_helped  bigint NOT NULL DEFAULT 0 CHECK (not_helped >= 0)
);

CREATE TABLE article_votes (
    article_id text NOT NULL REFERENCES articles,
    voter      bytea NOT NULL CHECK (length(voter) = 16),
    day        date NOT NULL,
    vote       text NOT NULL CHECK (vote IN ('click', 'feedback')),
    voted_at   timestamptz NOT NULL,
    PRIMARY KEY (article_id, voter, day, vote)
);
CREATE INDEX article_votes_by_age ON article_votes (voted_at);

CREATE TABLE missed_searches (
    language    text NOT NULL CHECK (language IN ('zh', 'en')),
    query       text NOT NULL CHECK (length(query) BETWEEN 1 AND 80),
    searches    bigint NOT NULL CHECK (searches > 0),
    first_at    timestamptz NOT NULL,
    searched_at timestamptz NOT NULL,
    PRIMARY KEY (language, query)
);
CREATE INDEX missed_searches_by_age ON missed_searches (searched_at);

COMMENT ON TABLE articles IS 'Articles of the knowledge base; gateways keep the published ones in memory';
COMMENT ON COLUMN articles.version IS 'Counts the changes of this row and of its versions'' statuses; a change names the version it was made from';
COMMENT ON COLUMN articles.owner IS 'The person or role that keeps the article right';
COMMENT ON COLUMN articles.review_by IS 'The day by which the owner has looked through it';
COMMENT ON COLUMN articles.reasons IS 'Codes of `return_reasons` that it is about';
COMMENT ON COLUMN articles.categories IS 'Codes of product categories that it is about';
COMMENT ON COLUMN articles.change_no IS 'Number of its last change among those of all articles, in the order of commits';
COMMENT ON TABLE article_versions IS 'Texts of articles; they never change, only their status does';
COMMENT ON COLUMN article_versions.status IS 'draft, in_review, published, retired; per language one is published at most, and one is on its way';
COMMENT ON COLUMN article_versions.search_words IS 'Words by which customers search for it';
COMMENT ON COLUMN article_versions.body IS 'Markdown';
COMMENT ON COLUMN article_versions.reviewer IS 'Who published it, never its author';
COMMENT ON TABLE article_changes IS 'One row: the last change of any article. Its lock puts changes in the order of their commits';
COMMENT ON TABLE article_usage IS 'How often an article was opened from a search, and whether it helped';
COMMENT ON TABLE article_votes IS 'Who has opened or rated an article on a day, so that each counts once; deleted after days';
COMMENT ON COLUMN article_votes.voter IS 'A keyed hash of user or address, another one each day';
COMMENT ON TABLE missed_searches IS 'Searches that found nothing, for editors; deleted by age';
COMMENT ON COLUMN missed_searches.query IS 'Normalised and shortened, without long numbers and addresses of e-mail';
