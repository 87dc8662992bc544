-- Coupons: units of a sale's stock, which an order takes together with its products, all or none.
--
-- The item of a coupon has the SKU `coupon:CODE`. No product has one with a colon.

ALTER TABLE sale_items DROP CONSTRAINT sale_items_sku_fkey;
ALTER TABLE sale_items
    ADD COLUMN product_sku text GENERATED ALWAYS AS (CASE WHEN sku LIKE 'coupon:%' THEN NULL ELSE sku END) STORED
        REFERENCES products,
    ADD CHECK (product_sku IS NOT NULL OR price_minor = 0);
COMMENT ON TABLE sale_items IS 'Products and coupons of a sale: price, limit per user, units at the start';
COMMENT ON COLUMN sale_items.product_sku IS 'Null for a coupon, whose SKU is `coupon:CODE`';

CREATE TABLE coupons (
    sale_id      text NOT NULL,
    code         text NOT NULL CHECK (code ~ '^[A-Z0-9][A-Z0-9-]{0,39}$'),
    promotion_id text NOT NULL CHECK (length(promotion_id) BETWEEN 1 AND 64),
    issued       boolean NOT NULL,
    created_at   timestamptz NOT NULL,
    sku          text NOT NULL GENERATED ALWAYS AS ('coupon:' || code) STORED,
    PRIMARY KEY (sale_id, code),
    FOREIGN KEY (sale_id, sku) REFERENCES sale_items
);
COMMENT ON TABLE coupons IS 'Coupons of sales; their numbers and limits per user are those of their items';
COMMENT ON COLUMN coupons.issued IS 'Whether a customer needs a code that was issued to him';

-- No foreign key to orders, as for order_lines.
CREATE TABLE order_coupons (
    order_id uuid NOT NULL,
    code     text NOT NULL,
    PRIMARY KEY (order_id, code)
);
COMMENT ON TABLE order_coupons IS 'Coupons of orders, one unit each';

CREATE VIEW order_units AS
    SELECT order_id, sku, quantity FROM order_lines
    UNION ALL
    SELECT order_id, 'coupon:' || code, 1 FROM order_coupons;
COMMENT ON VIEW order_units IS 'Units of stock and limits that orders have taken: products and coupons';

CREATE TRIGGER audit_update AFTER UPDATE ON order_coupons REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_delete AFTER DELETE ON order_coupons REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
ALTER TABLE order_coupons ENABLE ALWAYS TRIGGER audit_update, ENABLE ALWAYS TRIGGER audit_delete;
