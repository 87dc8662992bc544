-- A server that takes over from another one is compared with what was seen of that one before it takes orders.
ALTER TABLE sales
    ADD COLUMN observed_entry_at timestamptz,
    ADD COLUMN observed_entry_seq integer,
    ADD CHECK ((observed_entry_at IS NULL) = (observed_entry_seq IS NULL));
COMMENT ON COLUMN sales.observed_entry_at IS 'With observed_entry_seq: the id of the newest stream entry that a gateway has seen';
COMMENT ON COLUMN sales.observed_entry_seq IS 'Number of that entry within its millisecond';
COMMENT ON COLUMN sales.epoch IS 'Counts loads of the stock into Redis, and adoptions of a load by another server';

-- Small and cheap to keep: orders come in about in the order of their acceptance.
CREATE INDEX orders_by_acceptance ON orders USING brin (accepted_at) WITH (autosummarize = on);
COMMENT ON INDEX orders_by_acceptance IS 'Finds the newest stored entry of a sale';
CREATE INDEX releases_applied ON releases (sale_id, epoch, seq) WHERE status = 'applied';
CREATE INDEX stock_changes_applied ON stock_changes (sale_id, epoch, seq) WHERE status = 'applied';
COMMENT ON INDEX releases_applied IS 'Finds the newest change that a server must know';
COMMENT ON INDEX stock_changes_applied IS 'Finds the newest change that a server must know';

-- An order that a writer held when its Redis was wiped, and that was not counted when the sale was loaded again.
ALTER TABLE dead_letters
    ADD COLUMN stock_lost boolean NOT NULL DEFAULT false,
    ADD COLUMN retry_id uuid,
    ADD COLUMN retry_at timestamptz,
    ADD COLUMN retry_epoch integer,
    ADD COLUMN retry_seq bigint,
    ADD CHECK (NOT stock_lost OR units IS NULL OR retry_seq IS NOT NULL),
    ADD CHECK ((retry_id IS NULL) = (retry_at IS NULL)),
    ADD CHECK ((retry_epoch IS NULL) = (retry_seq IS NULL)),
    ADD CHECK (retry_seq IS NULL OR retry_id IS NOT NULL);
COMMENT ON COLUMN dead_letters.stock_lost IS 'Redis lost the units of the order: a retry has to reacquire them';
COMMENT ON COLUMN dead_letters.retry_id IS 'Id under which a retry reacquires the units in Redis; it may have done so';
COMMENT ON COLUMN dead_letters.retry_at IS 'Creation time of retry_id: Redis keeps the id under this day';
COMMENT ON COLUMN dead_letters.retry_epoch IS 'Load of the sale in which the units were reacquired';
COMMENT ON COLUMN dead_letters.retry_seq IS 'Number of that change within the load';

CREATE INDEX dead_letters_reacquired ON dead_letters (sale_id, retry_epoch, retry_seq) WHERE retry_seq IS NOT NULL;
COMMENT ON INDEX dead_letters_reacquired IS 'Finds the newest change that a server must know';
