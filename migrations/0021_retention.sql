-- outside a transaction
-- Rows that are deleted by age, found by an index; webhooks of carriers know their shipments.
ALTER TABLE carrier_webhooks ADD COLUMN IF NOT EXISTS shipment_ids uuid[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN carrier_webhooks.shipment_ids IS 'Shipments it is about; none of webhooks from before this column';
CREATE INDEX CONCURRENTLY IF NOT EXISTS payment_webhooks_by_age ON payment_webhooks (received_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS carrier_webhooks_by_age ON carrier_webhooks (received_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS shipment_events_by_age ON shipment_events (received_at)
WHERE to_status IS NULL AND NOT is_unknown_code AND NOT contradicts_history;
COMMENT ON INDEX shipment_events_by_age IS 'Finds old tracking events that may be deleted; changes of status stay';
COMMENT ON TABLE staff_requests IS 'Answers to staff requests with an Idempotency-Key, for repeats';
