-- Wait-lists: returned units are offered to those who waited longest, before they are on sale again.

ALTER TABLE sales ADD COLUMN has_wait_list boolean NOT NULL DEFAULT false;

CREATE TABLE wait_lists (
    sale_id            text PRIMARY KEY REFERENCES sales,
    mode               text NOT NULL CHECK (mode IN ('off', 'on')),
    accept_s           integer NOT NULL CHECK (accept_s BETWEEN 10 AND 86400),
    max_people_per_sku integer NOT NULL CHECK (max_people_per_sku BETWEEN 1 AND 1000000),
    ran_at             timestamptz,
    created_at         timestamptz NOT NULL
);

CREATE TABLE wait_list_skus (
    sale_id        text NOT NULL REFERENCES wait_lists,
    sku            text NOT NULL,
    last_number    bigint NOT NULL DEFAULT 0 CHECK (last_number >= 0),
    offered_number bigint NOT NULL DEFAULT 0,
    waiting        bigint NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    offered        bigint NOT NULL DEFAULT 0 CHECK (offered >= 0),
    offered_units  bigint NOT NULL DEFAULT 0 CHECK (offered_units >= 0),
    taken          bigint NOT NULL DEFAULT 0,
    lapsed         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sale_id, sku),
    FOREIGN KEY (sale_id, sku) REFERENCES sale_items,
    CHECK (offered_number BETWEEN 0 AND last_number)
);

CREATE TABLE wait_list_entries (
    sale_id         text NOT NULL,
    sku             text NOT NULL,
    number          bigint NOT NULL CHECK (number > 0),
    user_id         text NOT NULL,
    quantity        integer NOT NULL CHECK (quantity > 0),
    state           text NOT NULL DEFAULT 'waiting'
                    CHECK (state IN ('waiting', 'offered', 'taken', 'lapsed', 'left')),
    joined_at       timestamptz NOT NULL,
    offer_id        uuid UNIQUE,
    offered_units   integer CHECK (offered_units BETWEEN 1 AND quantity),
    offered_at      timestamptz,
    after_entry_at  timestamptz,
    after_entry_seq bigint,
    accept_by       timestamptz,
    ended_at        timestamptz,
    epoch           bigint,
    seq             bigint,
    PRIMARY KEY (sale_id, sku, number),
    FOREIGN KEY (sale_id, sku) REFERENCES wait_list_skus,
    CHECK ((offer_id IS NULL) = (offered_units IS NULL) AND (offer_id IS NULL) = (offered_at IS NULL)
           AND (offer_id IS NULL) = (after_entry_at IS NULL) AND (offer_id IS NULL) = (after_entry_seq IS NULL)),
    CHECK ((state IN ('waiting', 'left')) = (offer_id IS NULL)),
    CHECK ((epoch IS NULL) = (seq IS NULL) AND (seq IS NULL OR offer_id IS NOT NULL)),
    CHECK ((accept_by IS NULL) = (seq IS NULL)),
    CHECK ((state IN ('waiting', 'offered')) = (ended_at IS NULL))
);

-- A customer has one place per SKU.
CREATE UNIQUE INDEX wait_list_entries_open ON wait_list_entries (sale_id, sku, user_id)
    WHERE state IN ('waiting', 'offered');
CREATE INDEX wait_list_entries_waiting ON wait_list_entries (sale_id, sku, number) WHERE state = 'waiting';
CREATE INDEX wait_list_entries_offered ON wait_list_entries (sale_id, sku, number) WHERE state = 'offered';
CREATE INDEX wait_list_entries_user ON wait_list_entries (user_id, sale_id, sku, number);

COMMENT ON COLUMN sales.has_wait_list IS 'Whether returned units are held back for the wait-list; a term that is published to Redis';
COMMENT ON TABLE wait_lists IS 'The wait-list of a sale: its settings';
COMMENT ON COLUMN wait_lists.accept_s IS 'How long a customer may order what is offered to him';
COMMENT ON COLUMN wait_lists.ran_at IS 'When the keeper last found that orders are taken; a longer time without them is added to all offers';
COMMENT ON TABLE wait_list_skus IS 'Counts of a wait-list by SKU; the lock of this row orders joins and the keeper''s steps';
COMMENT ON COLUMN wait_list_skus.offered_number IS 'The highest number that has had an offer';
COMMENT ON COLUMN wait_list_skus.waiting IS 'People who wait, at this moment';
COMMENT ON COLUMN wait_list_skus.offered IS 'People with an offer, at this moment';
COMMENT ON COLUMN wait_list_skus.offered_units IS 'Units on offer, at this moment';
COMMENT ON COLUMN wait_list_skus.taken IS 'Offers that were taken';
COMMENT ON COLUMN wait_list_skus.lapsed IS 'Offers that were not taken in time';
COMMENT ON TABLE wait_list_entries IS 'Places on wait-lists; numbers rise per sale and SKU';
COMMENT ON COLUMN wait_list_entries.offered_units IS 'Units offered: all that the customer wants, or those there were';
COMMENT ON COLUMN wait_list_entries.after_entry_at IS 'Time of the sale''s last stream entry before the offer: orders after it have taken from it';
COMMENT ON COLUMN wait_list_entries.accept_by IS 'Until then the customer may order; null until Redis has the offer';
COMMENT ON COLUMN wait_list_entries.epoch IS 'Load in which Redis made the offer, or withdrew it';
COMMENT ON COLUMN wait_list_entries.seq IS 'Number of that change within the load; 0: the load itself restored the offer';
