-- A statement that inserts whole postings is checked at once, all of them together, in place of each entry at the commit.
-- Only what a statement leaves unbalanced waits for the end of its transaction.

CREATE TABLE ledger_unbalanced (posting text NOT NULL);
COMMENT ON TABLE ledger_unbalanced IS 'Postings that a statement left unbalanced, until its transaction completes them; no row is ever committed';

CREATE FUNCTION refuse_unbalanced_posting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger WHERE posting = NEW.posting
               GROUP BY currency, order_id HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'posting % does not balance', NEW.posting USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM ledger_unbalanced WHERE posting = NEW.posting;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refuse_unbalanced AFTER INSERT ON ledger_unbalanced DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced_posting();

-- Every posting has an entry below 0, so the rows of postings follow from these.
CREATE OR REPLACE FUNCTION add_postings_of_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger_unbalanced (posting)
    SELECT posting FROM added GROUP BY posting, currency, order_id HAVING sum(amount_minor) <> 0;
    INSERT INTO postings (posting, kind, order_id, at)
    SELECT DISTINCT ON (posting) posting, posting_kind(posting), order_id, at FROM added
    WHERE amount_minor < 0 AND NOT EXISTS (SELECT FROM postings WHERE postings.posting = added.posting)
    ON CONFLICT DO NOTHING;
    INSERT INTO accounts (account, kind, owner)
    SELECT account, account_kind(account), substring(account FROM '^(?:provider|fees|credit|cash:[a-z]+):(.+)$')
    FROM (SELECT DISTINCT account FROM added) AS used
    WHERE NOT EXISTS (SELECT FROM accounts WHERE accounts.account = used.account)
    ORDER BY account ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
DROP TRIGGER ledger_balances ON ledger;
DROP FUNCTION ledger_balances;
