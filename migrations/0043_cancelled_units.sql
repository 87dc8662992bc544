-- Every order that is to be shipped ends: it is delivered, or cancelled because nothing of it will be. What becomes of
-- units whose shipment ended without a delivery is decided unit by unit.

ALTER TABLE fulfilments DROP CONSTRAINT fulfilments_status_check, DROP CONSTRAINT fulfilments_check;
ALTER TABLE fulfilments
    ADD CONSTRAINT fulfilments_status_check
        CHECK (status IN ('pending', 'planned', 'delivered', 'done', 'cancelled')) NOT VALID,
    ADD CONSTRAINT fulfilments_check
        CHECK (status = 'cancelled' OR (status = 'pending') = (planned_at IS NULL)) NOT VALID;

ALTER TABLE shipments
    ADD COLUMN cancel_refused_at timestamptz,
    ADD COLUMN plan_again boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN shipments.cancel_refused_at IS 'When its carrier refused to cancel the booking; its units are delivered';
COMMENT ON COLUMN shipments.plan_again IS 'Stopped for a cancellation: units of it that are still wanted are planned again';

ALTER TABLE shipment_lines ADD COLUMN decided integer NOT NULL DEFAULT 0;
ALTER TABLE shipment_lines ADD CONSTRAINT shipment_lines_decided_check CHECK (decided BETWEEN 0 AND quantity) NOT VALID;
COMMENT ON COLUMN shipment_lines.decided IS
    'Units of a shipment that ended without a delivery and were since shipped or planned again, or cancelled';

ALTER TABLE cancellations ADD COLUMN is_whole boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN cancellations.is_whole IS 'Asked for without naming units: for all that had not left';
ALTER TABLE cancellation_lines ADD COLUMN written_off integer NOT NULL DEFAULT 0;
ALTER TABLE cancellation_lines
    ADD CONSTRAINT cancellation_lines_written_off_check CHECK (written_off BETWEEN 0 AND cancelled) NOT VALID;
COMMENT ON COLUMN cancellation_lines.written_off IS 'Of the cancelled units, those that do not return to stock';

-- Of shipments that ended before, the units of a line are decided if all units of the line are in other shipments, or if
-- the shipment was replaced.
UPDATE shipment_lines SET decided = shipment_lines.quantity
FROM shipments, fulfilment_lines
WHERE shipments.shipment_id = shipment_lines.shipment_id
  AND shipments.status IN ('lost', 'returned_to_sender', 'cancelled')
  AND fulfilment_lines.order_id = shipment_lines.order_id AND fulfilment_lines.line_no = shipment_lines.line_no
  AND fulfilment_lines.address_no = shipment_lines.address_no
  AND (fulfilment_lines.planned = ordered
       OR EXISTS (SELECT FROM shipments AS replacement WHERE replacement.replaces = shipments.shipment_id));
UPDATE shipments SET resolved_at = ended_at, resolution = 'its units are in other shipments'
WHERE status = 'cancelled' AND resolved_at IS NULL AND NOT EXISTS (
    SELECT FROM shipment_lines WHERE shipment_lines.shipment_id = shipments.shipment_id AND decided < quantity);

DROP INDEX shipments_unresolved;
CREATE INDEX shipments_unresolved ON shipments (shipment_id)
    WHERE status IN ('lost', 'returned_to_sender', 'cancelled') AND resolved_at IS NULL;

-- A refund has the worker look at once whether anything of the order is left to ship.
CREATE OR REPLACE FUNCTION recheck_fulfilment_after_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    SELECT order_id, 'cancellations', 'cancellation.advance', 'internal', NEW.created_at, NEW.created_at
    FROM fulfilments WHERE order_id = NEW.order_id AND status IN ('pending', 'planned')
    ON CONFLICT (subject, queue) DO UPDATE
    SET kind = excluded.kind, system = excluded.system, due_at = excluded.due_at, attempts = 0, parked = false,
        last_error = NULL;
    RETURN NULL;
END $$;

-- Orders that are refunded, or of which a shipment ended without a delivery, may have waited for this.
INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
SELECT order_id, 'cancellations', 'cancellation.advance', 'internal', now(), now() FROM fulfilments
WHERE status IN ('pending', 'planned') AND (
    EXISTS (SELECT FROM refunds WHERE refunds.order_id = fulfilments.order_id)
    OR EXISTS (SELECT FROM shipments WHERE shipments.order_id = fulfilments.order_id AND resolved_at IS NULL
                 AND shipments.status IN ('lost', 'returned_to_sender', 'cancelled')));
DELETE FROM jobs WHERE queue = 'fulfilments' AND kind = 'order.stop';
