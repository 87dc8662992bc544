-- The worklist of anomalies is found in the shipments, by an index that holds the unresolved ones alone. Before, every
-- tracking event that was ever anomalous was compared with its shipment, every few seconds.

ALTER TABLE shipments ADD COLUMN anomaly_at timestamptz;
COMMENT ON COLUMN shipments.anomaly_at IS 'When the last anomalous tracking event was received; unresolved if that is after resolved_at';

-- A trigger, so that processes of the version before set it too.
CREATE FUNCTION note_shipment_anomaly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shipments SET anomaly_at = greatest(anomaly_at, NEW.received_at) WHERE shipment_id = NEW.shipment_id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_shipment_anomaly AFTER INSERT ON shipment_events
    FOR EACH ROW WHEN (NEW.is_unknown_code OR NEW.contradicts_history) EXECUTE FUNCTION note_shipment_anomaly();

UPDATE shipments SET anomaly_at = anomalies.received_at
FROM (SELECT shipment_id, max(received_at) AS received_at FROM shipment_events
      WHERE is_unknown_code OR contradicts_history GROUP BY shipment_id) AS anomalies
WHERE anomalies.shipment_id = shipments.shipment_id;
