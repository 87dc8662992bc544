-- The parts of an order's price: subtotal - discounts + freight + fee for cash on delivery = total. Old orders have a
-- subtotal only, so their new columns have the right defaults. NOT VALID: old rows need no check, which would lock the
-- table.
ALTER TABLE orders
    ADD COLUMN discount_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN freight_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN cod_fee_minor bigint NOT NULL DEFAULT 0,
    ADD CHECK (discount_minor >= 0) NOT VALID,
    ADD CHECK (freight_minor >= 0) NOT VALID,
    ADD CHECK (cod_fee_minor >= 0) NOT VALID,
    ADD CHECK (total_minor >= freight_minor + cod_fee_minor) NOT VALID;
COMMENT ON COLUMN orders.total_minor IS 'Subtotal - discount_minor + freight_minor + cod_fee_minor';
COMMENT ON COLUMN orders.discount_minor IS 'Sum of the discounts of the lines, and of the rows in order_discounts';
COMMENT ON COLUMN orders.freight_minor IS 'Sum of the rows in order_freight';
COMMENT ON COLUMN orders.cod_fee_minor IS 'Fee for cash on delivery, once per order';

ALTER TABLE order_lines
    ADD COLUMN list_price_minor bigint,
    ADD COLUMN discount_minor bigint NOT NULL DEFAULT 0,
    ADD CHECK (list_price_minor >= 0) NOT VALID,
    ADD CHECK (CASE discount_minor WHEN 0 THEN true ELSE discount_minor BETWEEN 0 AND quantity * unit_price_minor END) NOT VALID;
COMMENT ON COLUMN order_lines.unit_price_minor IS 'Price of a unit in the sale, before discounts';
COMMENT ON COLUMN order_lines.list_price_minor IS 'Price of a unit outside the sale when it was ordered; null in old rows';
COMMENT ON COLUMN order_lines.discount_minor IS 'What promotions take off the whole line';

CREATE TABLE order_discounts (
    order_id uuid NOT NULL,
    discount_no smallint NOT NULL CHECK (discount_no >= 0),
    promotion_id text NOT NULL,
    label text NOT NULL CHECK (length(label) BETWEEN 1 AND 200),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (order_id, discount_no)
);
COMMENT ON TABLE order_discounts IS 'What each promotion took off an order, in the sequence in which they applied';
COMMENT ON COLUMN order_discounts.label IS 'The promotion as its customer read it';

CREATE TABLE order_freight (
    order_id uuid NOT NULL,
    address_no smallint NOT NULL CHECK (address_no >= 0),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (order_id, address_no)
);
COMMENT ON TABLE order_freight IS 'Freight of an order by address; an address without freight has no row';

-- As those of the other audited rows. The writer inserts these rows with their order.
DROP TRIGGER audit_update ON orders;
CREATE TRIGGER audit_update AFTER UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.status, OLD.status_seq, OLD.total_minor, OLD.idempotency_key, OLD.discount_minor, OLD.freight_minor,
           OLD.cod_fee_minor)
          IS DISTINCT FROM (NEW.status, NEW.status_seq, NEW.total_minor, NEW.idempotency_key, NEW.discount_minor,
                            NEW.freight_minor, NEW.cod_fee_minor))
    EXECUTE FUNCTION mark_changed_order();
ALTER TABLE orders ENABLE ALWAYS TRIGGER audit_update;
CREATE TRIGGER audit_insert AFTER INSERT ON order_discounts REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_insert AFTER INSERT ON order_freight REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_orders_of_changed();
CREATE TRIGGER audit_update AFTER UPDATE ON order_discounts REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_delete AFTER DELETE ON order_discounts REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_update AFTER UPDATE ON order_freight REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_delete AFTER DELETE ON order_freight REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
ALTER TABLE order_discounts ENABLE ALWAYS TRIGGER audit_insert, ENABLE ALWAYS TRIGGER audit_update, ENABLE ALWAYS TRIGGER audit_delete;
ALTER TABLE order_freight ENABLE ALWAYS TRIGGER audit_insert, ENABLE ALWAYS TRIGGER audit_update, ENABLE ALWAYS TRIGGER audit_delete;
