-- Promotions of sales: what is taken off the price of an order.

CREATE TABLE promotions (
    sale_id            text NOT NULL REFERENCES sales,
    promotion_id       text NOT NULL CHECK (promotion_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    label              text NOT NULL CHECK (length(label) BETWEEN 1 AND 200),
    promotion_class    text NOT NULL,
    rule               jsonb NOT NULL,
    skus               text[] CHECK (cardinality(skus) BETWEEN 1 AND 5000),
    starts_at          timestamptz,
    ends_at            timestamptz,
    new_customers_only boolean NOT NULL,
    enabled            boolean NOT NULL,
    changed_generation bigint NOT NULL CHECK (changed_generation > 0),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (sale_id, promotion_id),
    CHECK (ends_at > starts_at),
    CHECK ((rule ->> 'kind') IS NOT NULL),
    CHECK (CASE promotion_class
               WHEN 'item' THEN rule ->> 'kind' IN ('percent_off', 'amount_off')
               WHEN 'multi' THEN rule ->> 'kind' IN ('multi_buy', 'bundle')
               WHEN 'order' THEN rule ->> 'kind' IN ('stepped', 'repeated', 'percent')
               ELSE promotion_class = 'coupon' END),
    CHECK (CASE rule ->> 'kind' WHEN 'bundle' THEN coalesce(cardinality(skus), 0) BETWEEN 2 AND 20 ELSE true END)
);

COMMENT ON TABLE promotions IS 'What is taken off orders of a sale; gateways keep all of them in memory';
COMMENT ON COLUMN promotions.label IS 'The promotion as customers read it';
COMMENT ON COLUMN promotions.promotion_class IS 'When it applies: item, multi, order, coupon, one after another';
COMMENT ON COLUMN promotions.rule IS 'What it takes off, by its kind; see `Rule` in commerce/promotions/model.py';
COMMENT ON COLUMN promotions.skus IS 'The SKUs that it is for; null: all of the sale';
COMMENT ON COLUMN promotions.ends_at IS 'It is in force from starts_at until before this; null: without end';
COMMENT ON COLUMN promotions.enabled IS 'Disabled promotions of opened sales are kept, because orders name them';
COMMENT ON COLUMN promotions.changed_generation IS 'Generation of the sale in which it was last changed';
