-- Screening: what gateways saw of customers in a sale, the marks that accounts share, scores, and clearings by staff.

CREATE TABLE screened_sales (
    sale_id    text PRIMARY KEY REFERENCES sales,
    salt       bytea NOT NULL CHECK (length(salt) = 32),
    version    bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    created_at timestamptz NOT NULL
);

CREATE TABLE screening_sightings (
    sighting_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale_id       text NOT NULL,
    user_id       text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    address       bytea CHECK (length(address) = 16),
    device        bytea CHECK (length(device) = 16),
    form          bytea CHECK (length(form) = 16),
    joins         integer NOT NULL CHECK (joins >= 0),
    orders        integer NOT NULL CHECK (orders >= 0),
    peak_per_s    integer NOT NULL CHECK (peak_per_s >= 0),
    fastest_ms    integer CHECK (fastest_ms >= 0),
    first_request_at timestamptz NOT NULL,
    last_request_at  timestamptz NOT NULL CHECK (last_request_at >= first_request_at)
);

CREATE TABLE screening_marks (
    sale_id text NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('address', 'device', 'phone', 'form', 'form_address')),
    mark    bytea NOT NULL CHECK (length(mark) = 16),
    member  text NOT NULL CHECK (length(member) BETWEEN 1 AND 64),
    PRIMARY KEY (sale_id, kind, mark, member)
);
CREATE INDEX screening_marks_by_member ON screening_marks (sale_id, member, kind);

CREATE TABLE screening_groups (
    sale_id     text NOT NULL,
    kind        text NOT NULL,
    mark        bytea NOT NULL,
    members     integer NOT NULL CHECK (members >= 0),
    is_crowded  boolean NOT NULL DEFAULT false,
    rescored_to text,
    PRIMARY KEY (sale_id, kind, mark)
);
CREATE INDEX screening_groups_to_rescore ON screening_groups (sale_id, kind, mark) WHERE rescored_to IS NOT NULL;

CREATE TABLE screened_users (
    sale_id       text NOT NULL REFERENCES screened_sales,
    user_id       text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    joins         bigint NOT NULL DEFAULT 0 CHECK (joins >= 0),
    orders        bigint NOT NULL DEFAULT 0 CHECK (orders >= 0),
    peak_per_s    integer NOT NULL DEFAULT 0 CHECK (peak_per_s >= 0),
    fastest_ms    integer CHECK (fastest_ms >= 0),
    first_request_at timestamptz NOT NULL,
    last_request_at  timestamptz NOT NULL,
    score         smallint NOT NULL DEFAULT 0 CHECK (score BETWEEN 0 AND 100),
    reasons       jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(reasons) = 'array'),
    raised_at     timestamptz,
    cleared_until timestamptz,
    version       bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    PRIMARY KEY (sale_id, user_id),
    CHECK ((score = 0) = (reasons = '[]')),
    CHECK (score = 0 OR raised_at IS NOT NULL)
);
CREATE INDEX screened_users_by_score ON screened_users (sale_id, score DESC, user_id) WHERE score > 0;
CREATE INDEX screened_users_by_version ON screened_users (sale_id, version, user_id) WHERE version > 0;
CREATE INDEX screened_users_by_age ON screened_users (last_request_at);

CREATE TABLE screening_decisions (
    sale_id text NOT NULL,
    user_id text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    seq     integer NOT NULL CHECK (seq > 0),
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL CHECK (action IN ('cleared', 'revoked')),
    reason  text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    until   timestamptz,
    PRIMARY KEY (sale_id, user_id, seq),
    CHECK ((action = 'cleared') = (until IS NOT NULL))
);

CREATE TABLE screening_progress (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    order_id uuid NOT NULL
);

COMMENT ON TABLE screened_sales IS 'Sales whose customers are screened';
COMMENT ON COLUMN screened_sales.salt IS 'Key of the marks: without it nobody can tell which address, device or phone number a mark stands for';
COMMENT ON COLUMN screened_sales.version IS 'Raised by each change of a score or clearing; gateways read what has changed since theirs';
COMMENT ON TABLE screening_sightings IS 'What a gateway saw of a customer within about a second; the row is the job: a worker folds it into the other tables and deletes it';
COMMENT ON COLUMN screening_sightings.form IS 'Mark of the names of the request''s headers, in their sequence';
COMMENT ON COLUMN screening_sightings.fastest_ms IS 'Shortest time from the opening to a join or an order, if it was shorter than a person can be';
COMMENT ON TABLE screening_marks IS 'Who has which mark: an address, device, phone number or form of requests, hashed with the sale''s salt';
COMMENT ON COLUMN screening_marks.member IS 'The user; for form_address the address, in hex, from which requests of a form came';
COMMENT ON TABLE screening_groups IS 'How many members each mark has';
COMMENT ON COLUMN screening_groups.is_crowded IS 'More members than one household, device or phone number has';
COMMENT ON COLUMN screening_groups.rescored_to IS 'The last member that was scored since is_crowded changed; null if all are';
COMMENT ON TABLE screened_users IS 'Customers of a sale with their score and its reasons';
COMMENT ON COLUMN screened_users.reasons IS 'The signals with their points and what was measured when the score changed';
COMMENT ON COLUMN screened_users.raised_at IS 'When the score last rose; the action wait counts from it';
COMMENT ON COLUMN screened_users.cleared_until IS 'Staff have cleared the customer: until then the score leads to nothing';
COMMENT ON COLUMN screened_users.version IS 'The version of the sale that brought the last change; 0: never scored nor cleared';
COMMENT ON TABLE screening_decisions IS 'Clearings by staff and their revocations';
COMMENT ON TABLE screening_progress IS 'The order up to which phone numbers were read';
