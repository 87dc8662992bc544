-- name: allow_long_statements
SET LOCAL statement_timeout = '600s';

-- name: list_items
SELECT sku, initial_units, limit_bound FROM sale_items WHERE sale_id = $1;

-- name: sum_applied_changes
-- Units of stock changes by SKU that are marked as applied by the cut.
SELECT sku, sum(delta)::bigint AS units FROM stock_changes
WHERE sale_id = $1 AND status = 'applied' AND (epoch, seq) <= ($2, $3) GROUP BY sku;

-- name: list_open_changes
-- Stock changes that are not marked. Redis may have applied them already.
SELECT change_id, sku, delta AS units, created_at FROM stock_changes WHERE sale_id = $1 AND status = 'pending';

-- name: list_open_releases
-- Releases that are not marked. Redis may have applied them already.
SELECT release_id, user_id, units, coalesce(written_off, '{}') AS written_off, created_at FROM releases
WHERE sale_id = $1 AND status = 'pending';

-- name: list_changes_without_job
-- P1. A job is about to apply each pending stock change.
SELECT change_id::text FROM stock_changes WHERE sale_id = $1 AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = change_id AND queue = 'stock_changes');

-- name: read_state
SELECT epoch, loaded_epoch, state FROM sales WHERE sale_id = $1;

-- name: sum_after
-- Units by SKU of stored orders, of those that are sold (without what partial releases take), of dead letters, and of
-- applied releases: those in stock again, and those written off. After a position.
WITH units (sku, reserved, sold, dead, released, written_off) AS (
    SELECT sku, sum(quantity), sum(quantity) FILTER (WHERE is_order_sold(status)), 0, 0, 0
    FROM order_units JOIN orders USING (order_id)
    WHERE sale_id = $1 AND (accepted_at, entry_seq) > ($2, $3) GROUP BY sku
    UNION ALL
    SELECT key, 0, -sum(value::bigint), 0, 0, 0
    FROM releases JOIN orders ON order_id = part_of, jsonb_each_text(units)
    WHERE orders.sale_id = $1 AND (accepted_at, entry_seq) > ($2, $3) AND is_order_sold(orders.status) GROUP BY key
    UNION ALL
    SELECT key, 0, 0, sum(value::bigint), 0, 0 FROM dead_letters, jsonb_each_text(units)
    WHERE sale_id = $1 AND status <> 'retried' AND (entry_at, entry_seq) > ($2, $3) GROUP BY key
    UNION ALL
    SELECT key, 0, 0, 0, sum(value::bigint - coalesce((written_off ->> key)::bigint, 0)),
           sum(coalesce((written_off ->> key)::bigint, 0))
    FROM releases, jsonb_each_text(units)
    WHERE sale_id = $1 AND status = 'applied' AND (epoch, seq) > ($4, $5) GROUP BY key
)
SELECT sku, sum(reserved)::bigint AS reserved, coalesce(sum(sold), 0)::bigint AS sold, sum(dead)::bigint AS dead,
       sum(released)::bigint AS released, sum(written_off)::bigint AS written_off FROM units GROUP BY sku;

-- name: sum_marked
-- What the marks since the seal add to the sealed sums.
WITH marks AS (
    SELECT kind, id, sum(weight) AS weight FROM audit_marks, unnest(ids) AS id
    WHERE sale_id = $1 AND weight <> 0 GROUP BY kind, id HAVING sum(weight) <> 0
), units AS (
    SELECT kind, sku, sum(quantity * weight) AS units FROM marks JOIN order_units ON order_id = id
    WHERE kind IN ('stored', 'sold') GROUP BY kind, sku
    UNION ALL
    SELECT 'sold', key, -sum(value::bigint * weight) FROM marks JOIN releases ON release_id = id, jsonb_each_text(units)
    WHERE kind = 'unsold' GROUP BY key
    UNION ALL
    SELECT kind, key, sum(value::bigint * weight) FROM marks JOIN dead_letters ON order_id = id, jsonb_each_text(units)
    WHERE kind = 'dead' GROUP BY kind, key
    UNION ALL
    SELECT kind, key, sum((value::bigint - coalesce((written_off ->> key)::bigint, 0)) * weight)
    FROM marks JOIN releases ON release_id = id, jsonb_each_text(units) WHERE kind = 'released' GROUP BY kind, key
    UNION ALL
    SELECT 'written_off', key, sum(value::bigint * weight)
    FROM marks JOIN releases ON release_id = id, jsonb_each_text(written_off) WHERE kind = 'released' GROUP BY key
)
SELECT sku, coalesce(sum(units) FILTER (WHERE kind = 'stored'), 0)::bigint AS reserved,
       coalesce(sum(units) FILTER (WHERE kind = 'sold'), 0)::bigint AS sold,
       coalesce(sum(units) FILTER (WHERE kind = 'dead'), 0)::bigint AS dead,
       coalesce(sum(units) FILTER (WHERE kind = 'released'), 0)::bigint AS released,
       coalesce(sum(units) FILTER (WHERE kind = 'written_off'), 0)::bigint AS written_off FROM units GROUP BY sku;

-- name: count_orders
SELECT count(*) FROM orders WHERE sale_id = $1;

-- name: read_seal
-- With the orders that were stored since, and whether history was changed since, as no part of the shop does.
SELECT epoch, whole_at, orders + (SELECT coalesce(sum(weight * cardinality(ids)), 0) FROM audit_marks
                                  WHERE sale_id = $1 AND kind = 'stored')::bigint AS orders,
       EXISTS (SELECT FROM audit_marks WHERE sale_id = $1 AND kind = 'rewritten') AS is_rewritten
FROM audit_seals WHERE sale_id = $1;

-- name: read_sealed_sums
SELECT sku, reserved, sold, dead, released, written_off FROM audit_sums WHERE sale_id = $1;

-- name: list_marked
-- Ids of what was marked; those with the kind 'counted' only if they are asked for.
SELECT DISTINCT id FROM audit_marks, unnest(ids) AS id WHERE sale_id = $1 AND (kind = 'counted') = $2;

-- name: delete_marks
-- In the snapshot of an audit: those that it has seen. Ids that are still to be compared with Redis may stay.
DELETE FROM audit_marks WHERE sale_id = $1 AND (kind <> 'counted' OR $2);

-- name: insert_mark
INSERT INTO audit_marks (sale_id, kind, ids, weight) VALUES ($1, $2, $3, 0);

-- name: write_seal
INSERT INTO audit_seals (sale_id, epoch, orders, is_at_rest, sealed_at, whole_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (sale_id) DO UPDATE SET epoch = excluded.epoch, orders = excluded.orders, is_at_rest = excluded.is_at_rest,
    sealed_at = excluded.sealed_at, whole_at = excluded.whole_at;

-- name: write_sealed_sums
INSERT INTO audit_sums (sale_id, sku, reserved, sold, dead, released, written_off)
SELECT $1, input.sku, input.reserved, input.sold, input.dead, input.released, input.written_off
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
     AS input (sku, reserved, sold, dead, released, written_off)
ON CONFLICT (sale_id, sku) DO UPDATE SET reserved = excluded.reserved, sold = excluded.sold, dead = excluded.dead,
    released = excluded.released, written_off = excluded.written_off;

-- name: delete_seal
DELETE FROM audit_seals WHERE sale_id = $1;

-- name: list_seals
-- Sales by the time when all their history was audited, and whether nothing has happened to them since the seal.
SELECT sale_id, whole_at, is_at_rest AND NOT EXISTS (
    SELECT FROM audit_marks WHERE audit_marks.sale_id = audit_seals.sale_id) AS is_at_rest
FROM audit_seals ORDER BY whole_at;

-- name: list_order_ids
SELECT order_id, accepted_at, entry_seq FROM orders
WHERE sale_id = $1 AND (accepted_at, entry_seq, order_id) > ($2, $3, $4)
ORDER BY accepted_at, entry_seq, order_id LIMIT $5;

-- name: list_ids_without_order
-- Ids of releases and dead letters whose order is not stored, or not in this sale.
SELECT coalesce(part_of, reacquires, release_id) AS id FROM releases WHERE sale_id = $1 AND NOT EXISTS (
    SELECT FROM orders WHERE orders.order_id = coalesce(part_of, reacquires, release_id)
                         AND orders.sale_id = releases.sale_id);

-- name: list_excused
-- Orders whose money or reacquired stock is in order only because a job still waits: to be looked at again.
SELECT payments.order_id FROM payments JOIN orders USING (order_id)
WHERE payments.order_id = ANY($1::uuid[]) AND payments.status = 'captured'
  AND payments.captured_minor > (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                               WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')
  AND (orders.status = 'cancelled'
       OR plan_revision < (SELECT max(plan_revision) FROM payments AS later WHERE later.order_id = payments.order_id))
UNION
SELECT reacquires FROM releases JOIN orders ON order_id = reacquires
WHERE reacquires = ANY($1::uuid[]) AND releases.status = 'applied' AND orders.status = 'cancelled'
  AND cancel_reason = 'expired'
UNION
SELECT payments.order_id FROM payments JOIN jobs ON jobs.subject = payments.order_id AND queue = 'cancellations'
WHERE payments.order_id = ANY($1::uuid[]) AND method = 'cod' AND payments.status = 'captured';

-- name: unreadable_dead_letters
SELECT order_id::text FROM dead_letters WHERE sale_id = $1 AND units IS NULL AND status = 'held';

-- name: sum_bought
-- P4. Units by user of SKUs with a limit, up to the cut, without released units.
WITH movements AS (
    SELECT user_id, sku, quantity AS units FROM order_units JOIN orders USING (order_id)
    WHERE sale_id = $1 AND (accepted_at, entry_seq) <= ($2, $3)
    UNION ALL
    SELECT user_id, key, value::bigint FROM dead_letters, jsonb_each_text(units)
    WHERE sale_id = $1 AND status <> 'retried' AND (entry_at, entry_seq) <= ($2, $3)
    UNION ALL
    SELECT user_id, key, -value::bigint FROM releases, jsonb_each_text(units)
    WHERE sale_id = $1 AND status = 'applied' AND (epoch < $4 OR (epoch = $4 AND seq <= $5))
)
SELECT user_id, sku, sum(units)::bigint AS units FROM movements JOIN sale_items USING (sku)
WHERE sale_id = $1 AND user_limit IS NOT NULL AND user_id IS NOT NULL GROUP BY user_id, sku HAVING sum(units) <> 0;

-- name: list_users
-- Users of a sale whose orders, releases or dead letters have these ids.
SELECT user_id FROM orders WHERE order_id = ANY($2::uuid[]) AND sale_id = $1
UNION SELECT user_id FROM releases WHERE release_id = ANY($2::uuid[]) AND sale_id = $1
UNION SELECT user_id FROM dead_letters WHERE order_id = ANY($2::uuid[]) AND sale_id = $1 AND user_id IS NOT NULL;

-- name: sum_bought_by
-- P4. The same of some users; 0 too.
WITH own_orders AS (
    SELECT order_id, user_id, accepted_at, entry_seq FROM orders WHERE user_id = ANY($6::text[]) AND sale_id = $1
), own_letters AS (
    SELECT order_id, user_id, units FROM dead_letters
    WHERE user_id = ANY($6::text[]) AND sale_id = $1 AND status <> 'retried' AND (entry_at, entry_seq) <= ($2, $3)
), own_releases AS (
    SELECT release_id FROM own_orders JOIN releases ON release_id = order_id
    UNION SELECT release_id FROM own_orders JOIN releases ON reacquires = order_id
    UNION SELECT release_id FROM own_orders JOIN releases ON part_of = order_id
    UNION SELECT release_id FROM own_letters JOIN releases ON release_id = order_id
), movements AS (
    SELECT user_id, sku, quantity AS units FROM own_orders JOIN order_units USING (order_id)
    WHERE (accepted_at, entry_seq) <= ($2, $3)
    UNION ALL
    SELECT user_id, key, value::bigint FROM own_letters, jsonb_each_text(units)
    UNION ALL
    SELECT user_id, key, -value::bigint FROM own_releases JOIN releases USING (release_id), jsonb_each_text(units)
    WHERE status = 'applied' AND (epoch < $4 OR (epoch = $4 AND seq <= $5))
)
SELECT user_id, sku, sum(units)::bigint AS units FROM movements JOIN sale_items USING (sku)
WHERE sale_id = $1 AND user_limit IS NOT NULL GROUP BY user_id, sku;

-- name: count_dead_letters
SELECT count(*) FROM dead_letters WHERE status = 'held';

-- name: ledger_sums
-- P6. The ledger adds up to 0 by currency, and store credit equals its account.
SELECT 'the ledger in ' || currency AS subject, sum(amount_minor)::bigint AS difference FROM ledger
GROUP BY currency HAVING sum(amount_minor) <> 0
UNION ALL
SELECT 'credit of ' || user_id, balance_minor + coalesce((
    SELECT sum(amount_minor)::bigint FROM ledger
    WHERE account = 'credit:' || user_id AND ledger.currency = credit_accounts.currency), 0)
FROM credit_accounts WHERE balance_minor <> -coalesce((
    SELECT sum(amount_minor) FROM ledger
    WHERE account = 'credit:' || user_id AND ledger.currency = credit_accounts.currency), 0);
