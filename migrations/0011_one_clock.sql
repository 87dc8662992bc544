-- The fulfilment of a paid order is due at the time of the event that says so. Like all other jobs it is then due by
-- the clock of the processes, which count whole milliseconds: by now(), in microseconds and of another machine, a
-- worker that looked at once did not find it yet.
DROP TRIGGER create_fulfilment_of_paid_order ON orders;
CREATE OR REPLACE FUNCTION create_fulfilment_of_paid_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fulfilments (order_id, paid_at, due_at) VALUES (NEW.order_id, NEW.at, NEW.at) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER create_fulfilment_of_paid_order AFTER INSERT ON order_events
    FOR EACH ROW WHEN (NEW.to_status IN ('paid', 'confirmed')) EXECUTE FUNCTION create_fulfilment_of_paid_order();
COMMENT ON FUNCTION create_fulfilment_of_paid_order() IS 'Makes the job of an order that is to be sent, at the time of its event';
