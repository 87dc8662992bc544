-- Pictures of products. A picture is known by the digest of the file that was sent. That file is not kept: what is kept
-- are files that were rendered from it, each under the digest of its own content.

CREATE TABLE pictures (
    digest       bytea PRIMARY KEY CHECK (length(digest) = 32),
    created_at   timestamptz NOT NULL,
    unused_since timestamptz
);
CREATE INDEX pictures_unused ON pictures (unused_since) WHERE unused_since IS NOT NULL;

CREATE TABLE picture_files (
    digest      bytea NOT NULL REFERENCES pictures ON DELETE CASCADE,
    size        integer NOT NULL CHECK (size > 0),
    sha256      bytea NOT NULL CHECK (length(sha256) = 32),
    size_bytes  integer NOT NULL CHECK (size_bytes > 0),
    width_px    integer NOT NULL CHECK (width_px BETWEEN 1 AND size),
    height_px   integer NOT NULL CHECK (height_px BETWEEN 1 AND size),
    PRIMARY KEY (digest, size)
);
CREATE INDEX picture_files_by_content ON picture_files (sha256);

CREATE TABLE product_pictures (
    product_id text NOT NULL REFERENCES products,
    digest     bytea NOT NULL REFERENCES pictures,
    position   bigint NOT NULL,
    alt_texts  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(alt_texts) = 'object'),
    added_at   timestamptz NOT NULL,
    added_by   text NOT NULL,
    PRIMARY KEY (product_id, digest)
);
CREATE INDEX product_pictures_of_picture ON product_pictures (digest);

CREATE TABLE picture_imports (
    import_id  uuid PRIMARY KEY,
    position   bigint GENERATED ALWAYS AS IDENTITY,
    product_id text NOT NULL REFERENCES products,
    url        text CHECK (length(url) <= 2000),
    digest     bytea CHECK (length(digest) = 32),
    alt_texts  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(alt_texts) = 'object'),
    status     text NOT NULL CHECK (status IN ('pending', 'stored', 'refused')),
    reason     text,
    detail     text CHECK (length(detail) <= 500),
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    ended_at   timestamptz,
    CHECK (url IS NOT NULL OR digest IS NOT NULL),
    CHECK ((status = 'refused') = (reason IS NOT NULL)),
    CHECK ((status = 'pending') = (ended_at IS NULL)),
    CHECK (status <> 'stored' OR digest IS NOT NULL)
);
CREATE INDEX picture_imports_of_product ON picture_imports (product_id, position);
CREATE INDEX picture_imports_by_file ON picture_imports (digest) WHERE status = 'pending' AND digest IS NOT NULL;
CREATE INDEX picture_imports_ended ON picture_imports (ended_at) WHERE ended_at IS NOT NULL;

COMMENT ON TABLE pictures IS 'Pictures, by the SHA-256 of the file that was sent';
COMMENT ON COLUMN pictures.unused_since IS 'When its last product dropped it; deleted some days later';
COMMENT ON TABLE picture_files IS 'Files of a picture, one of each size';
COMMENT ON COLUMN picture_files.size IS 'Largest width and height in pixels';
COMMENT ON COLUMN picture_files.sha256 IS 'Digest of its content, under which it is stored';
COMMENT ON TABLE product_pictures IS 'Pictures of a product; the first by position is its cover';
COMMENT ON COLUMN product_pictures.alt_texts IS 'By language: what the picture shows, for those who do not see it';
COMMENT ON TABLE picture_imports IS 'Pictures that were uploaded or named by URL, each checked and rendered by a job';
COMMENT ON COLUMN picture_imports.position IS 'Place of its picture among those of the product, until staff order them';
COMMENT ON COLUMN picture_imports.digest IS 'Of the file; of a URL once it was fetched';
COMMENT ON COLUMN picture_imports.reason IS 'Word for why it was refused';
