-- outside a transaction
-- What every gateway and keeper of wait-lists reads twice a second, however many sales have been, and what a promoted
-- replica waits for.
CREATE INDEX CONCURRENTLY IF NOT EXISTS wait_list_skus_awaited ON wait_list_skus (sale_id, sku)
WHERE waiting > 0 OR offered > 0;
COMMENT ON INDEX wait_list_skus_awaited IS 'Finds the SKUs for which people wait or have offers';
CREATE INDEX CONCURRENTLY IF NOT EXISTS wait_list_entries_changes ON wait_list_entries (sale_id, epoch, seq)
WHERE seq IS NOT NULL;
COMMENT ON INDEX wait_list_entries_changes IS 'Finds the newest change that a server must know';
