-- Customers' saved addresses; carts of customers and guests; checkouts, which turn a cart into one order per sale.

CREATE TABLE saved_addresses (
    address_id uuid PRIMARY KEY,
    user_id    text NOT NULL,
    address    jsonb NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX saved_addresses_of_user ON saved_addresses (user_id, address_id);
CREATE UNIQUE INDEX saved_addresses_default ON saved_addresses (user_id) WHERE is_default;

CREATE TABLE carts (
    cart_id        uuid PRIMARY KEY,
    user_id        text,
    version        bigint NOT NULL CHECK (version > 0),
    merged_into    uuid,
    merge_warnings jsonb,
    checkout_id    uuid,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK ((merged_into IS NULL) = (merge_warnings IS NULL)),
    CHECK (merged_into IS NULL OR user_id IS NULL),
    CHECK (checkout_id IS NULL OR user_id IS NOT NULL)
);
CREATE UNIQUE INDEX carts_of_user ON carts (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX carts_of_guests ON carts (updated_at) WHERE user_id IS NULL;

CREATE TABLE cart_lines (
    cart_id              uuid NOT NULL REFERENCES carts ON DELETE CASCADE,
    sale_id              text NOT NULL,
    sku                  text NOT NULL,
    quantity             integer NOT NULL CHECK (quantity > 0),
    selected             boolean NOT NULL,
    saved                boolean NOT NULL,
    accepted_price_minor bigint NOT NULL CHECK (accepted_price_minor >= 0),
    added_at             timestamptz NOT NULL,
    PRIMARY KEY (cart_id, sale_id, sku)
);

CREATE TABLE checkouts (
    checkout_id    uuid PRIMARY KEY,
    cart_id        uuid NOT NULL REFERENCES carts,
    cart_version   bigint NOT NULL,
    user_id        text NOT NULL,
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    state          text NOT NULL CHECK (state IN ('placing', 'done')),
    attempt        integer NOT NULL CHECK (attempt > 0),
    lease_until    timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    ended_at       timestamptz,
    UNIQUE (cart_id, cart_version),
    CHECK ((state = 'done') = (ended_at IS NOT NULL))
);
CREATE INDEX checkouts_by_age ON checkouts (created_at) WHERE state = 'done';

CREATE TABLE checkout_orders (
    checkout_id uuid NOT NULL REFERENCES checkouts ON DELETE CASCADE,
    sale_id     text NOT NULL,
    body        jsonb,
    outcome     text NOT NULL CHECK (outcome IN ('pending', 'placed', 'refused', 'not_placed')),
    order_id    uuid,
    total_minor bigint,
    currency    text,
    pay_by      timestamptz,
    problem     jsonb,
    PRIMARY KEY (checkout_id, sale_id),
    CHECK ((outcome = 'placed') = (order_id IS NOT NULL)),
    CHECK ((outcome = 'refused') = (problem IS NOT NULL)),
    CHECK (outcome <> 'pending' OR body IS NOT NULL)
);

COMMENT ON TABLE saved_addresses IS 'Address book of customers; orders keep copies of what they are sent to';
COMMENT ON INDEX saved_addresses_default IS 'A customer has one default address at most';
COMMENT ON TABLE carts IS 'Carts: one per customer, and those of guests, who have no user_id. They reserve nothing';
COMMENT ON COLUMN carts.version IS 'Rises with each change; a client states the one that it knows';
COMMENT ON COLUMN carts.merged_into IS 'Of a guest: the customer''s cart that took over its lines. It does not change any more';
COMMENT ON COLUMN carts.merge_warnings IS 'What the merge cut or left, for the same answer to its repeats';
COMMENT ON COLUMN carts.checkout_id IS 'The checkout that is under way; until it ends the cart does not change';
COMMENT ON COLUMN carts.updated_at IS 'Time of the last change; from it on a guest''s cart ages';
COMMENT ON TABLE cart_lines IS 'What somebody may want to buy, by sale and SKU';
COMMENT ON COLUMN cart_lines.selected IS 'Whether a checkout takes the line';
COMMENT ON COLUMN cart_lines.saved IS 'Whether the line is saved for later: it is in no total and no checkout';
COMMENT ON COLUMN cart_lines.accepted_price_minor IS 'Unit price when the customer last set the quantity or accepted the price';
COMMENT ON TABLE checkouts IS 'A cart''s version that was turned into orders: written before the first order is placed';
COMMENT ON COLUMN checkouts.request_digest IS 'SHA-256 of the request: only a repeat of the same one goes on';
COMMENT ON COLUMN checkouts.attempt IS 'Number of the request that places the orders; an older one may not write any more';
COMMENT ON COLUMN checkouts.lease_until IS 'Until then no other request goes on with it';
COMMENT ON TABLE checkout_orders IS 'The orders of a checkout, one per sale';
COMMENT ON COLUMN checkout_orders.body IS 'The order as it is placed; null once the checkout is done';
COMMENT ON COLUMN checkout_orders.outcome IS 'not_placed: the checkout was not repeated in time, and the sale has no order of it';
COMMENT ON COLUMN checkout_orders.problem IS 'The refusal, as a problem';
