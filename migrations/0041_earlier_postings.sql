-- outside a transaction
-- Postings and accounts of the entries before 0040, and what may be built while the shop goes on. Nobody is locked out:
-- a trigger adds the rows of new entries.
INSERT INTO postings (posting, kind, order_id, at)
SELECT posting, posting_kind(posting), order_id, at FROM ledger
WHERE amount_minor < 0 AND NOT EXISTS (SELECT FROM postings WHERE postings.posting = ledger.posting)
ON CONFLICT DO NOTHING;
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
SELECT 'cash ' || shipment_id, account, order_id, amount, currency, cod_collected_at
FROM shipments CROSS JOIN LATERAL (
    VALUES ('cash:carrier:' || coalesce(carrier, 'unknown'), cod_minor), ('collected', -cod_minor)) AS entries (account, amount)
WHERE cod_collected_at IS NOT NULL AND cod_minor > 0
  AND NOT EXISTS (SELECT FROM ledger WHERE posting = 'cash ' || shipment_id)
  AND NOT EXISTS (SELECT FROM ledger WHERE ledger.order_id = shipments.order_id AND account = 'cash')
ON CONFLICT DO NOTHING;
INSERT INTO accounts (account, kind, owner)
SELECT 'credit:' || user_id, 'liability', user_id FROM credit_accounts ON CONFLICT DO NOTHING;
CREATE INDEX CONCURRENTLY IF NOT EXISTS postings_of_order ON postings (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ledger_of_cash ON ledger (account, currency, line_id) INCLUDE (amount_minor, at) WHERE account LIKE 'cash:%';
ALTER TABLE payments VALIDATE CONSTRAINT payments_uncollected;
ALTER TABLE ledger VALIDATE CONSTRAINT ledger_account_check;
