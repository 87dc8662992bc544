-- Accounts and postings as rows. Entries stay in `ledger`.
--
-- An older version that still runs inserts entries only. A trigger adds the rows of their postings and accounts, so that
-- there is never an entry without them. The next migration adds the rows of the entries before this one.

CREATE TABLE accounts (
    account    text PRIMARY KEY CHECK (length(account) BETWEEN 1 AND 100),
    kind       text NOT NULL CHECK (kind IN ('asset', 'liability', 'income', 'expense', 'clearing')),
    currency   text CHECK (currency ~ '^[A-Z]{3}$'),
    owner      text CHECK (length(owner) BETWEEN 1 AND 64),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE accounts IS 'Accounts of the ledger: where money lies, to whom it is owed, what it was spent on';
COMMENT ON COLUMN accounts.kind IS 'Assets and expenses are positive in the ledger, liabilities and income negative, clearing ends at 0';
COMMENT ON COLUMN accounts.currency IS 'Its only currency; null: any';
COMMENT ON COLUMN accounts.owner IS 'The provider, carrier, vehicle or customer; null: the shop';

CREATE TABLE postings (
    posting   text PRIMARY KEY CHECK (length(posting) BETWEEN 1 AND 100),
    kind      text NOT NULL CHECK (kind IN ('capture', 'refund', 'gift', 'cash_collected', 'cash_deposit', 'fee', 'payout',
                                            'exchange', 'transfer', 'adjustment')),
    order_id  uuid,
    actor     text CHECK (length(actor) BETWEEN 1 AND 100),
    reference text CHECK (length(reference) BETWEEN 1 AND 200),
    reason    text CHECK (length(reason) BETWEEN 1 AND 500),
    booked_on date,
    at        timestamptz NOT NULL
);
COMMENT ON TABLE postings IS 'Movements of money, append-only; the entries of each are in ledger and add up to zero';
COMMENT ON COLUMN postings.actor IS 'The member of staff; null: a worker';
COMMENT ON COLUMN postings.reference IS 'Number of the movement at the provider, carrier or bank';
COMMENT ON COLUMN postings.booked_on IS 'The day of the provider, carrier or bank; null: that of `at`';

CREATE FUNCTION postings_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'postings are only ever added to: correct one with another posting'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER postings_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION postings_are_append_only();

CREATE FUNCTION account_kind(account text) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT CASE
        WHEN account ~ '^(provider:|cash|bank$)' THEN 'asset'
        WHEN account ~ '^(credit:|orders$)' THEN 'liability'
        WHEN account ~ '^(fees:|shop:credit$|differences$)' THEN 'expense'
        ELSE 'clearing' END
$$;
COMMENT ON FUNCTION account_kind IS 'Kind of an account, from its name';

CREATE FUNCTION posting_kind(posting text) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$
    SELECT CASE
        WHEN word IN ('capture', 'refund', 'gift', 'fee', 'payout', 'exchange', 'transfer') THEN word
        WHEN word = 'cash' THEN 'cash_collected'
        WHEN word = 'deposit' THEN 'cash_deposit'
        ELSE 'adjustment' END
    FROM split_part(posting, ' ', 1) AS word
$$;
COMMENT ON FUNCTION posting_kind IS 'Kind of a posting, from its name';

CREATE FUNCTION add_postings_of_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO postings (posting, kind, order_id, at)
    SELECT DISTINCT ON (posting) posting, posting_kind(posting), order_id, at FROM added
    WHERE NOT EXISTS (SELECT FROM postings WHERE postings.posting = added.posting) ON CONFLICT DO NOTHING;
    INSERT INTO accounts (account, kind, owner)
    SELECT DISTINCT account, account_kind(account), substring(account FROM '^(?:provider|fees|credit|cash:[a-z]+):(.+)$')
    FROM added WHERE NOT EXISTS (SELECT FROM accounts WHERE accounts.account = added.account)
    ORDER BY account ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER add_postings AFTER INSERT ON ledger REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION add_postings_of_entries();

ALTER TABLE ledger DROP CONSTRAINT ledger_account_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_account_check CHECK (
    account ~ '^(provider:[a-z_]+|fees:[a-z0-9_]+|cash|cash:shop|cash:(carrier|driver):[A-Za-z0-9_-]{1,64}|bank|collected|orders|exchanges|differences|shop:credit|credit:.{1,64})$')
    NOT VALID;

-- These are used all the time; without their rows the first who need them would wait for each other.
INSERT INTO accounts (account, kind, owner)
SELECT account, account_kind(account), substring(account FROM '^(?:provider|fees):(.+)$')
FROM unnest(ARRAY['provider:alipay', 'provider:wechatpay', 'fees:alipay', 'fees:wechatpay', 'cash', 'cash:shop', 'bank',
                  'collected', 'orders', 'exchanges', 'differences', 'shop:credit']) AS account;

-- Postings and entries by what they are about, for the audit.
CREATE TRIGGER audit_insert AFTER INSERT ON postings FOR EACH ROW
    WHEN (NEW.kind = 'cash_collected' AND NEW.order_id IS NOT NULL) EXECUTE FUNCTION mark_order_of_row();
CREATE TRIGGER audit_delete AFTER DELETE ON postings REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
CREATE TRIGGER audit_update AFTER UPDATE ON postings REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION mark_rewritten_of_orders();
