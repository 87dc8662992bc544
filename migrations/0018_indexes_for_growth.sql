-- outside a transaction
-- Indexes with which no statement of a running shop reads a whole table, however many orders there are. Each costs
-- something at every write of what it holds, so they are partial where few rows are looked for.

-- Everything that looks at one sale: loads, the first limit on a live sale, adoption, audits. Orders of one stream entry
-- have one key, which is stored once for all of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_of_sale ON orders (sale_id, accepted_at, entry_seq);
COMMENT ON INDEX orders_of_sale IS 'Finds the orders of a sale, those since a moment, and the newest one';
-- It takes the place of a BRIN index, which went bad over time: a change of an old order is a new version of its row
-- among the newest rows, and so their block range covered all times up to now.
DROP INDEX CONCURRENTLY IF EXISTS orders_by_acceptance;
CREATE INDEX CONCURRENTLY IF NOT EXISTS dead_letters_of_sale ON dead_letters (sale_id, entry_at, entry_seq);
COMMENT ON INDEX dead_letters_of_sale IS 'Finds the dead letters of a sale, and the newest one';

-- What waits for staff: counted every few seconds, few rows, and none are written in normal operation.
CREATE INDEX CONCURRENTLY IF NOT EXISTS releases_parked ON releases (sale_id) WHERE status = 'parked';
CREATE INDEX CONCURRENTLY IF NOT EXISTS stock_changes_parked ON stock_changes (sale_id) WHERE status = 'parked';
CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_parked ON payments (order_id) WHERE parked;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_parked ON refunds (order_id) WHERE parked;
CREATE INDEX CONCURRENTLY IF NOT EXISTS fulfilments_parked ON fulfilments (paid_at) WHERE parked;

-- Reconciliation reads one day. A BRIN index would go bad here as well: a refund moves an old payment among new ones.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_captured ON payments (captured_at) WHERE captured_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_done ON refunds (ended_at) WHERE status = 'done';

-- Picking and reshipping. A wave is one key for all its shipments; few shipments replace another one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_of_wave ON shipments (wave_id) WHERE wave_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_replacing ON shipments (replaces) WHERE replaces IS NOT NULL;

-- Worklists. Each holds only what waits, so that history costs nothing. Those to be packed enter and leave theirs, which
-- staff and every wave read.
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_to_pack ON shipments (warehouse_id, shipment_id)
WHERE ended_at IS NULL AND packed_at IS NULL AND status IN ('planned', 'booked');
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_parked ON shipments (shipment_id) WHERE ended_at IS NULL AND parked;
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_on_hold ON shipments (shipment_id)
WHERE ended_at IS NULL AND held_reason IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_with_anomaly ON shipments (shipment_id)
WHERE anomaly_at IS NOT NULL AND (resolved_at IS NULL OR anomaly_at > resolved_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_of_own_fleet ON shipments (promised_on, planned_at, shipment_id)
WHERE carrier = 'own_fleet' AND ended_at IS NULL;
-- In the sequence of pages, for one warehouse or all. The one by warehouse that it replaces does not have that of all,
-- and Postgres walked the primary key instead: through every shipment that was ever sent.
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipments_not_ended ON shipments (shipment_id, warehouse_id) WHERE ended_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS shipments_open;
CREATE INDEX CONCURRENTLY IF NOT EXISTS routes_planned ON routes (day) WHERE status = 'planned';
