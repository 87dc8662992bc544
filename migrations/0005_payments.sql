-- Payments, refunds and the ledger. As with releases, the row is the job.

-- One way in which a part of an order is paid. A customer who changes the method begins a new round: the payments of
-- the last one are those that count, money that comes in on an earlier one goes back.
-- task is what is to be done next: ask the provider for it, look whether it is paid, see that it cannot be paid any
-- more, find out whether the goods of an order that was paid too late can be had again, look at the order once more.
CREATE TABLE payments (
    payment_id     uuid PRIMARY KEY,
    order_id       uuid NOT NULL REFERENCES orders,
    user_id        text NOT NULL,
    round          smallint NOT NULL CHECK (round > 0),
    part           smallint NOT NULL CHECK (part >= 0),
    method         text NOT NULL CHECK (method IN ('alipay', 'wechatpay', 'balance', 'cod')),
    scene          text NOT NULL CHECK (scene IN ('page', 'app', 'qr', 'jsapi', 'none')),
    payer          text CHECK (length(payer) BETWEEN 1 AND 128),
    amount_minor   bigint NOT NULL CHECK (amount_minor > 0),
    currency       text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    status         text NOT NULL DEFAULT 'pending'
                   CHECK (status IN ('pending', 'authorised', 'captured', 'failed', 'closed')),
    reason         text CHECK (length(reason) BETWEEN 1 AND 500),
    action         jsonb,
    transaction_id text CHECK (length(transaction_id) BETWEEN 1 AND 128),
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    captured_at    timestamptz,
    ended_at       timestamptz,
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND amount_minor),
    task           text CHECK (task IN ('create', 'query', 'close', 'late', 'settle')),
    due_at         timestamptz NOT NULL,
    attempts       integer NOT NULL DEFAULT 0,
    last_error     text,
    parked         boolean NOT NULL DEFAULT false,
    UNIQUE (order_id, round, part),
    UNIQUE (method, transaction_id),
    CHECK ((status = 'captured') = (captured_at IS NOT NULL)),
    CHECK ((status IN ('failed', 'closed')) = (ended_at IS NOT NULL)),
    CHECK (status = 'captured' OR refunded_minor = 0),
    CHECK (status <> 'pending' OR task IS NOT NULL)
);
CREATE INDEX payments_due ON payments (due_at) WHERE task IS NOT NULL AND NOT parked;
CREATE INDEX payments_pending ON payments (order_id) WHERE status = 'pending';

-- Money on its way back. refund_key makes a repeated request the same refund.
CREATE TABLE refunds (
    refund_id    uuid PRIMARY KEY,
    payment_id   uuid NOT NULL REFERENCES payments,
    order_id     uuid NOT NULL REFERENCES orders,
    refund_key   text NOT NULL CHECK (length(refund_key) BETWEEN 1 AND 128),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    reason       text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    actor        text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    status       text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done', 'failed')),
    asked        boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    due_at       timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    last_error   text,
    parked       boolean NOT NULL DEFAULT false,
    UNIQUE (payment_id, refund_key),
    CHECK ((status = 'pending') = (ended_at IS NULL))
);
CREATE INDEX refunds_due ON refunds (due_at) WHERE status = 'pending' AND NOT parked;
CREATE INDEX refunds_of_order ON refunds (order_id);

-- Genuine callbacks, each once, with what became of it. Stored before they are answered.
CREATE TABLE payment_notices (
    method      text NOT NULL,
    notice_id   text NOT NULL CHECK (length(notice_id) BETWEEN 1 AND 256),
    payment_id  uuid NOT NULL,
    refund_id   uuid,
    received_at timestamptz NOT NULL,
    result      text NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (method, notice_id)
);
CREATE INDEX payment_notices_of ON payment_notices (payment_id);

-- Double entry: the lines of one posting add up to nothing. Accounts: provider:NAME (money that lies there for us),
-- cash (collected by carriers), orders (what customers have paid and not got back), credit:USER (store credit that is
-- theirs), shop:credit (what the shop has given away as credit).
CREATE TABLE ledger (
    line_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    posting      text NOT NULL CHECK (length(posting) BETWEEN 1 AND 100),
    account      text NOT NULL CHECK (account ~ '^(provider:[a-z_]+|cash|orders|shop:credit|credit:.{1,64})$'),
    order_id     uuid,
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    at           timestamptz NOT NULL,
    UNIQUE (posting, account)
);
CREATE INDEX ledger_of_order ON ledger (order_id);
CREATE INDEX ledger_of_account ON ledger (account, currency);

CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only ever added to: correct it with another posting'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

CREATE FUNCTION ledger_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger WHERE posting = NEW.posting
               GROUP BY currency, order_id HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'posting % does not balance', NEW.posting USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_balances AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_balances();

-- Store credit; its balance is that of the account credit:USER in the ledger, kept here to be locked and checked.
CREATE TABLE credit_accounts (
    user_id       text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    balance_minor bigint NOT NULL DEFAULT 0 CHECK (balance_minor BETWEEN 0 AND 1000000000000000),
    PRIMARY KEY (user_id, currency)
);

-- An order that expired and is paid after all may get its goods again: a release with its units below zero, applied
-- all or not at all. It is refused where there are not enough left.
ALTER TABLE releases ADD COLUMN retakes uuid UNIQUE REFERENCES orders;
ALTER TABLE releases DROP CONSTRAINT releases_status_check;
ALTER TABLE releases ADD CONSTRAINT releases_status_check CHECK (
    status IN ('pending', 'applied', 'parked') OR (status = 'refused' AND retakes IS NOT NULL)) NOT VALID;
ALTER TABLE releases DROP CONSTRAINT releases_check;
ALTER TABLE releases ADD CONSTRAINT releases_check CHECK (
    (status IN ('applied', 'refused')) = (settled_at IS NOT NULL)) NOT VALID;
INSERT INTO order_transitions VALUES ('cancelled', 'paid'), ('cancelled', 'confirmed');
