-- A shipment may be delivered before its carrier says that it cannot be stopped: what is reported counts at once, and the
-- cancellation keeps the units when it is advanced.
ALTER TABLE fulfilment_lines DROP CONSTRAINT fulfilment_lines_cancelled_check;
ALTER TABLE fulfilment_lines
    ADD CONSTRAINT fulfilment_lines_cancelled_check
        CHECK (0 <= cancelled AND 0 <= cancelling AND planned <= ordered - cancelled
               AND cancelling <= ordered - cancelled) NOT VALID;
