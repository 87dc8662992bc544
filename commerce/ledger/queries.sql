-- name: insert_postings
-- Those that are not posted yet, with their entries.
WITH posted AS (
    INSERT INTO postings (posting, kind, order_id, actor, reference, reason, booked_on, at)
    SELECT posting, posting_kind(posting), order_id, actor, reference, reason, booked_on, $1
    FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::date[])
        AS input (posting, order_id, actor, reference, reason, booked_on)
    ON CONFLICT DO NOTHING RETURNING posting, order_id
), entries AS (
    INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at)
    SELECT posting, account, order_id, amount, currency, $1
    FROM posted JOIN unnest($8::text[], $9::text[], $10::bigint[], $11::text[])
        AS input (posting, account, amount, currency) USING (posting)
)
SELECT posting FROM posted;

-- name: get_entries
SELECT account, amount_minor, currency FROM ledger WHERE posting = $1;

-- name: lock_account
SELECT account FROM accounts WHERE account = $1 FOR UPDATE;

-- name: list_held_cash
-- Cash is handed over in the sequence in which it was collected, so what is left is the newest. `index` finds where
-- the sum of the newest entries reaches the balance.
WITH balances AS (
    SELECT account, currency, sum(amount_minor)::bigint AS balance FROM ledger
    WHERE account LIKE 'cash:%' AND ($1::text IS NULL OR account = $1) GROUP BY account, currency
)
SELECT substr(account, 6) AS holder, balance, currency, CASE WHEN balance > 0 THEN (
    SELECT at FROM (
        SELECT at, sum(amount_minor) OVER (ORDER BY line_id DESC) AS newest FROM ledger
        WHERE ledger.account = balances.account AND ledger.currency = balances.currency
          AND ledger.account LIKE 'cash:%' AND amount_minor > 0
    ) AS collected WHERE newest >= balance ORDER BY newest LIMIT 1) END AS oldest_at
FROM balances WHERE balance <> 0 ORDER BY oldest_at NULLS LAST, holder, currency;

-- name: list_balances
-- Adds up the whole ledger.
SELECT account, account_kind(CASE account WHEN 'credit' THEN 'credit:' ELSE account END) AS kind, currency, sum(amount_minor)::bigint AS balance FROM (
    SELECT CASE WHEN account LIKE 'credit:%' THEN 'credit' ELSE account END AS account, currency, amount_minor
    FROM ledger WHERE $1::timestamptz IS NULL OR at < $1
) AS entries GROUP BY account, currency ORDER BY account, currency;
