-- Money that goes back is told to the driver of shipments at once: it looks whether what is left of the order's parcels
-- must be stopped, also of those that wait for a person.
CREATE FUNCTION refund_may_stop_parcels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE fulfilments SET due_at = NEW.created_at, attempts = 0
    WHERE order_id = NEW.order_id AND status = 'planned';
    RETURN NULL;
END $$;
CREATE TRIGGER refund_may_stop_parcels AFTER INSERT ON refunds
    FOR EACH ROW EXECUTE FUNCTION refund_may_stop_parcels();
UPDATE fulfilments SET due_at = now(), attempts = 0
WHERE status = 'planned' AND EXISTS (SELECT FROM refunds WHERE refunds.order_id = fulfilments.order_id);
