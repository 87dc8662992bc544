-- A server that takes over from another one is compared with what was seen of that one before it takes orders.
ALTER TABLE sales
    ADD COLUMN observed_entry_at timestamptz,
    ADD COLUMN observed_entry_seq integer,
    ADD CHECK ((observed_entry_at IS NULL) = (observed_entry_seq IS NULL));
COMMENT ON COLUMN sales.observed_entry_at IS 'With observed_entry_seq: the id of the newest stream entry that a gateway has seen';
COMMENT ON COLUMN sales.observed_entry_seq IS 'Number of that entry within its millisecond';
COMMENT ON COLUMN sales.epoch IS 'Counts loads of the stock into Redis, and adoptions of a load by another server';

CREATE INDEX releases_applied ON releases (sale_id, epoch, seq) WHERE status = 'applied';
CREATE INDEX stock_changes_applied ON stock_changes (sale_id, epoch, seq) WHERE status = 'applied';
COMMENT ON INDEX releases_applied IS 'Finds the newest change that a server must know';
COMMENT ON INDEX stock_changes_applied IS 'Finds the newest change that a server must know';

-- An order that a writer held when its Redis was wiped, and that was not counted when the sale was loaded again.
ALTER TABLE dead_letters
    ADD COLUMN stock_lost boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT stock_lost OR units IS NULL);
COMMENT ON COLUMN dead_letters.stock_lost IS 'The order holds no units any more: a retry has to reacquire them';
