-- Products, and the sales that offer them.

CREATE TABLE products (
    sku         text PRIMARY KEY CHECK (sku ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    price_minor bigint NOT NULL CHECK (price_minor BETWEEN 0 AND 1000000000000000),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

-- generation counts changes of what a gateway must know (prices, limits, times, state); Redis was last told
-- published_generation. epoch counts how often the stock was loaded into Redis; loaded_epoch is the last one
-- that was finished. Where a pair differs, the work is unfinished and is taken up again.
CREATE TABLE sales (
    sale_id              text PRIMARY KEY CHECK (sale_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    title                text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    currency             text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    state                text NOT NULL CHECK (state IN ('draft', 'open', 'paused', 'closed')),
    opens_at             timestamptz NOT NULL,
    closes_at            timestamptz CHECK (closes_at > opens_at),
    pay_within_s         integer NOT NULL CHECK (pay_within_s BETWEEN 10 AND 31536000),
    generation           bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    published_generation bigint NOT NULL DEFAULT 0 CHECK (published_generation <= generation),
    epoch                integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    loaded_epoch         integer NOT NULL DEFAULT 0 CHECK (loaded_epoch <= epoch),
    created_at           timestamptz NOT NULL,
    CHECK (state = 'draft' OR epoch > 0)
);

-- limit_bound is the highest limit that was ever in force while the sale ran (NULL: at some time there was none);
-- it is what a user's units are audited against after a limit was lowered.
CREATE TABLE sale_items (
    sale_id            text NOT NULL REFERENCES sales,
    sku                text NOT NULL REFERENCES products,
    price_minor        bigint NOT NULL CHECK (price_minor BETWEEN 0 AND 1000000000000000),
    user_limit         integer CHECK (user_limit > 0),
    limit_bound        integer CHECK (limit_bound >= user_limit),
    initial_units      bigint NOT NULL CHECK (initial_units BETWEEN 0 AND 1000000000),
    changed_generation bigint NOT NULL,
    PRIMARY KEY (sale_id, sku)
);

-- A change of stock after the sale was opened. The row is the job: it is applied to Redis once, under its own id.
-- (epoch, seq) is its place among the changes of one load, which lets an audit cut between two of them.
CREATE TABLE stock_changes (
    change_id  uuid PRIMARY KEY,
    sale_id    text NOT NULL,
    sku        text NOT NULL,
    delta      bigint NOT NULL CHECK (delta <> 0 AND abs(delta) <= 1000000000),
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    actor      text NOT NULL,
    status     text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'applied', 'refused', 'parked')),
    due_at     timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    last_error text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    epoch      integer,
    seq        bigint,
    FOREIGN KEY (sale_id, sku) REFERENCES sale_items,
    CHECK ((status IN ('applied', 'refused')) = (settled_at IS NOT NULL)),
    CHECK ((status = 'applied') = (epoch IS NOT NULL AND seq IS NOT NULL))
);
CREATE INDEX stock_changes_due ON stock_changes (due_at) WHERE status = 'pending';
CREATE INDEX stock_changes_of_sale ON stock_changes (sale_id, created_at);

-- What staff did to a sale, and why.
CREATE TABLE sale_log (
    log_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale_id text NOT NULL REFERENCES sales,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    detail  jsonb NOT NULL
);
