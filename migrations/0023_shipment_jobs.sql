-- What is to be done with shipments and orders stands in jobs; their rows keep their business state.

-- The system of a carrier: kuaidi100 tracks all carriers that have none of their own.
INSERT INTO jobs (subject, queue, kind, system, due_at, attempts, parked, last_error, created_at)
SELECT shipment_id, 'shipments',
       CASE WHEN task = 'book' AND booking_id IS NULL AND (carrier IS NULL OR parked) THEN 'shipment.assign'
            ELSE 'shipment.' || task END,
       CASE WHEN carrier IS NULL OR carrier = 'own_fleet' OR (task = 'book' AND booking_id IS NULL AND parked)
            THEN 'internal' WHEN carrier = 'sf_express' THEN 'sf_express' ELSE 'kuaidi100' END,
       due_at, attempts, parked, last_error, planned_at
FROM shipments WHERE task IS NOT NULL AND ended_at IS NULL
UNION ALL
SELECT order_id, 'fulfilments',
       CASE status WHEN 'pending' THEN 'order.plan' WHEN 'planned' THEN 'order.stop' ELSE 'order.complete' END,
       'internal', coalesce(due_at, paid_at), attempts, parked, last_error, paid_at
FROM fulfilments WHERE (due_at IS NOT NULL OR parked) AND status <> 'done';

DROP INDEX shipments_due, shipments_parked, fulfilments_due, fulfilments_parked;
ALTER TABLE shipments DROP COLUMN task, DROP COLUMN due_at, DROP COLUMN attempts, DROP COLUMN parked, DROP COLUMN last_error;
ALTER TABLE fulfilments DROP COLUMN due_at, DROP COLUMN attempts, DROP COLUMN parked, DROP COLUMN last_error;
COMMENT ON TABLE shipments IS 'Units of one order from one warehouse to one address in one box';
COMMENT ON COLUMN shipments.after_cancel IS
    'While its booking is cancelled: the status that follows, planned (at next_address, if set) or cancelled';
COMMENT ON TABLE fulfilments IS 'Orders to be shipped, created when an order is paid or confirmed';

CREATE OR REPLACE FUNCTION create_fulfilment_of_paid_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fulfilments (order_id, paid_at) VALUES (NEW.order_id, NEW.at) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
        VALUES (NEW.order_id, 'fulfilments', 'order.plan', 'internal', NEW.at, NEW.at);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION create_fulfilment_of_paid_order() IS 'Plans an order that is to be sent, at the time of its event';

-- A refund has the worker look at once whether what is left of the order's shipments must be stopped, also of those
-- that wait for a person.
CREATE OR REPLACE FUNCTION recheck_fulfilment_after_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
    SELECT order_id, 'fulfilments', 'order.stop', 'internal', NEW.created_at, NEW.created_at
    FROM fulfilments WHERE order_id = NEW.order_id AND status = 'planned'
    ON CONFLICT (subject, queue) DO UPDATE
    SET kind = excluded.kind, system = excluded.system, due_at = excluded.due_at, attempts = 0, parked = false,
        last_error = NULL;
    RETURN NULL;
END $$;
