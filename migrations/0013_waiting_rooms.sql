-- Waiting rooms: a room per sale, its closed list in the order of the places.

CREATE TABLE waiting_rooms (
    sale_id            text PRIMARY KEY REFERENCES sales,
    mode               text NOT NULL CHECK (mode IN ('off', 'on')),
    state              text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'drawing', 'serving', 'ended')),
    salt               bytea NOT NULL CHECK (length(salt) = 32),
    join_opens_at      timestamptz NOT NULL,
    list_closes_at     timestamptz NOT NULL CHECK (list_closes_at > join_opens_at),
    min_account_age_s  integer NOT NULL CHECK (min_account_age_s >= 0),
    served_valid_s     integer NOT NULL CHECK (served_valid_s BETWEEN 10 AND 3600),
    max_pace_per_s     integer NOT NULL CHECK (max_pace_per_s BETWEEN 1 AND 1000000),
    max_waiting        integer NOT NULL CHECK (max_waiting BETWEEN 1 AND 5000000),
    served_per_unit    real NOT NULL CHECK (served_per_unit BETWEEN 0.1 AND 100),
    -- The draw.
    named_source       text NOT NULL CHECK (length(named_source) BETWEEN 1 AND 300),
    randomness_at      timestamptz,
    fallback_after_s   integer NOT NULL CHECK (fallback_after_s BETWEEN 1 AND 86400),
    fallback_rounds    integer NOT NULL CHECK (fallback_rounds BETWEEN 1 AND 10000),
    listed_at          timestamptz,
    entries            integer CHECK (entries >= 0),
    list_digest        bytea CHECK (length(list_digest) = 32),
    source             text CHECK (length(source) BETWEEN 1 AND 300),
    randomness         text CHECK (length(randomness) BETWEEN 1 AND 1000),
    drawn_at           timestamptz,
    -- Serving.
    served             bigint NOT NULL DEFAULT 0 CHECK (served >= 0),
    expired            bigint NOT NULL DEFAULT 0,
    last_number        bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    pace_per_s         real NOT NULL DEFAULT 0 CHECK (pace_per_s >= 0),
    steps              jsonb NOT NULL DEFAULT '[]',
    turns_ran_at       timestamptz,
    sold_out           text[] NOT NULL DEFAULT '{}',
    ended_at           timestamptz,
    version            bigint NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL,
    CHECK (expired BETWEEN 0 AND served),
    CHECK ((listed_at IS NULL) = (list_digest IS NULL) AND (listed_at IS NULL) = (entries IS NULL)),
    CHECK (listed_at IS NOT NULL OR randomness IS NULL),
    CHECK ((source IS NULL) = (randomness IS NULL)),
    CHECK (drawn_at IS NULL OR randomness IS NOT NULL),
    CHECK (drawn_at IS NOT NULL OR served = 0),
    CHECK ((state = 'waiting') = (listed_at IS NULL) OR state = 'ended'),
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);

CREATE TABLE waiting_room_lists (
    sale_id text NOT NULL REFERENCES waiting_rooms,
    part_no integer NOT NULL CHECK (part_no >= 0),
    hashes  bytea NOT NULL CHECK (length(hashes) > 0 AND length(hashes) % 32 = 0),
    PRIMARY KEY (sale_id, part_no)
);

COMMENT ON TABLE waiting_rooms IS 'The waiting room of a sale: its settings, its draw, and how far it has served';
COMMENT ON COLUMN waiting_rooms.salt IS 'Secret from which each customer''s nonce is derived: without it nobody can tell whose a ticket hash is';
COMMENT ON COLUMN waiting_rooms.named_source IS 'The public randomness that was named before the list closed: drand:CHAIN:ROUND, delay:ROUNDS or a text';
COMMENT ON COLUMN waiting_rooms.source IS 'The randomness that was used: the named one, or delay:ROUNDS if that was not published in time';
COMMENT ON COLUMN waiting_rooms.served IS 'Holders of numbers up to this may order; it never falls';
COMMENT ON COLUMN waiting_rooms.expired IS 'Numbers up to this were served longer than served_valid_s ago';
COMMENT ON COLUMN waiting_rooms.last_number IS 'The last number given, as of the keeper''s last look at Redis';
COMMENT ON COLUMN waiting_rooms.steps IS 'The last steps of served: number, time in ms, ms since then in which nobody could order; expired follows from them';
COMMENT ON COLUMN waiting_rooms.turns_ran_at IS 'When the keeper last found that orders are taken; the time without them is added to every turn';
COMMENT ON COLUMN waiting_rooms.sold_out IS 'SKUs without a free unit, at most 100 of them';
COMMENT ON COLUMN waiting_rooms.version IS 'Raised by each change but that of last_number; steps are taken from one version';
COMMENT ON TABLE waiting_room_lists IS 'The closed list of a room in parts: ticket hashes of 32 bytes, sorted until the draw, then by place';
