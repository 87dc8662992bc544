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
SELECT release_id, user_id, units, created_at FROM releases WHERE sale_id = $1 AND status = 'pending';

-- name: read_state
SELECT epoch, loaded_epoch, state FROM sales WHERE sale_id = $1;

-- name: sum_after
-- Units by SKU of stored orders, of those that are sold, of dead letters, and of applied releases, after a position.
WITH units (sku, reserved, sold, dead, released) AS (
    SELECT sku, sum(quantity), sum(quantity) FILTER (WHERE is_order_sold(status)), 0, 0
    FROM order_lines JOIN orders USING (order_id)
    WHERE sale_id = $1 AND (accepted_at, entry_seq) > ($2, $3) GROUP BY sku
    UNION ALL
    SELECT key, 0, 0, sum(value::bigint), 0 FROM dead_letters, jsonb_each_text(units)
    WHERE sale_id = $1 AND status <> 'retried' AND (entry_at, entry_seq) > ($2, $3) GROUP BY key
    UNION ALL
    SELECT key, 0, 0, 0, sum(value::bigint) FROM releases, jsonb_each_text(units)
    WHERE sale_id = $1 AND status = 'applied' AND (epoch, seq) > ($4, $5) GROUP BY key
)
SELECT sku, sum(reserved)::bigint AS reserved, coalesce(sum(sold), 0)::bigint AS sold, sum(dead)::bigint AS dead,
       sum(released)::bigint AS released FROM units GROUP BY sku;

-- name: sum_marked
-- What the marks since the seal add to the sealed sums.
WITH marks AS (
    SELECT kind, id, sum(weight) AS weight FROM audit_marks, unnest(ids) AS id
    WHERE sale_id = $1 AND weight <> 0 GROUP BY kind, id HAVING sum(weight) <> 0
), units AS (
    SELECT kind, sku, sum(quantity * weight) AS units FROM marks JOIN order_lines ON order_id = id
    WHERE kind IN ('stored', 'sold') GROUP BY kind, sku
    UNION ALL
    SELECT kind, key, sum(value::bigint * weight) FROM marks JOIN dead_letters ON order_id = id, jsonb_each_text(units)
    WHERE kind = 'dead' GROUP BY kind, key
    UNION ALL
    SELECT kind, key, sum(value::bigint * weight) FROM marks JOIN releases ON release_id = id, jsonb_each_text(units)
    WHERE kind = 'released' GROUP BY kind, key
)
SELECT sku, coalesce(sum(units) FILTER (WHERE kind = 'stored'), 0)::bigint AS reserved,
       coalesce(sum(units) FILTER (WHERE kind = 'sold'), 0)::bigint AS sold,
       coalesce(sum(units) FILTER (WHERE kind = 'dead'), 0)::bigint AS dead,
       coalesce(sum(units) FILTER (WHERE kind = 'released'), 0)::bigint AS released FROM units GROUP BY sku;

-- name: count_orders
SELECT count(*) FROM orders WHERE sale_id = $1;

-- name: read_seal
-- With the orders that were stored since, and whether history was changed since, as no part of the shop does.
SELECT epoch, whole_at, orders + (SELECT coalesce(sum(weight * cardinality(ids)), 0) FROM audit_marks
                                  WHERE sale_id = $1 AND kind = 'stored')::bigint AS orders,
       EXISTS (SELECT FROM audit_marks WHERE sale_id = $1 AND kind = 'rewritten') AS is_rewritten
FROM audit_seals WHERE sale_id = $1;

-- name: read_sealed_sums
SELECT sku, reserved, sold, dead, released FROM audit_sums WHERE sale_id = $1;

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
INSERT INTO audit_sums (sale_id, sku, reserved, sold, dead, released)
SELECT $1, input.sku, input.reserved, input.sold, input.dead, input.released
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS input (sku, reserved, sold, dead, released)
ON CONFLICT (sale_id, sku) DO UPDATE SET reserved = excluded.reserved, sold = excluded.sold, dead = excluded.dead,
    released = excluded.released;

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
SELECT coalesce(reacquires, release_id) AS id FROM releases WHERE sale_id = $1 AND NOT EXISTS (
    SELECT FROM orders WHERE order_id = coalesce(reacquires, release_id) AND orders.sale_id = releases.sale_id);

-- name: list_excused
-- Orders whose money or reacquired stock is in order only because a job still waits: to be looked at again.
SELECT payments.order_id FROM payments JOIN orders USING (order_id)
WHERE payments.order_id = ANY($1::uuid[]) AND payments.status = 'captured'
  AND payments.amount_minor > (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                               WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')
  AND (orders.status = 'cancelled'
       OR plan_revision < (SELECT max(plan_revision) FROM payments AS later WHERE later.order_id = payments.order_id))
UNION
SELECT reacquires FROM releases JOIN orders ON order_id = reacquires
WHERE reacquires = ANY($1::uuid[]) AND releases.status = 'applied' AND orders.status = 'cancelled';

-- name: unreadable_dead_letters
SELECT order_id::text FROM dead_letters WHERE sale_id = $1 AND units IS NULL AND status = 'held';

-- name: repeated_keys
-- P3. A constraint forbids it too, but an audit trusts no constraint. The other order may be of any sale.
SELECT DISTINCT user_id || ' ' || idempotency_key FROM orders JOIN orders AS other USING (user_id, idempotency_key)
WHERE orders.order_id = ANY($1::uuid[]) AND other.order_id <> orders.order_id;

-- name: sum_bought
-- P4. Units by user of SKUs with a limit, up to the cut, without released units.
WITH movements AS (
    SELECT user_id, sku, quantity AS units FROM order_lines JOIN orders USING (order_id)
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
    UNION SELECT release_id FROM own_letters JOIN releases ON release_id = order_id
), movements AS (
    SELECT user_id, sku, quantity AS units FROM own_orders JOIN order_lines USING (order_id)
    WHERE (accepted_at, entry_seq) <= ($2, $3)
    UNION ALL
    SELECT user_id, key, value::bigint FROM own_letters, jsonb_each_text(units)
    UNION ALL
    SELECT user_id, key, -value::bigint FROM own_releases JOIN releases USING (release_id), jsonb_each_text(units)
    WHERE status = 'applied' AND (epoch < $4 OR (epoch = $4 AND seq <= $5))
)
SELECT user_id, sku, sum(units)::bigint AS units FROM movements JOIN sale_items USING (sku)
WHERE sale_id = $1 AND user_limit IS NOT NULL GROUP BY user_id, sku;

-- name: cancelled_without_release
-- P5. The stock of a cancelled order is released.
SELECT order_id::text FROM orders LEFT JOIN releases ON release_id = order_id
WHERE orders.order_id = ANY($1::uuid[]) AND orders.status = 'cancelled' AND release_id IS NULL;

-- name: releases_without_job
-- P5. A job is about to apply each pending release; those that reacquire are done by jobs of payments.
SELECT release_id::text FROM releases
WHERE releases.release_id = ANY($1::uuid[]) AND status = 'pending' AND reacquires IS NULL
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = release_id AND queue = 'releases');

-- name: orphan_releases
-- P5. A release belongs to a cancelled order, or to a discarded dead letter.
SELECT release_id::text FROM releases LEFT JOIN orders ON orders.order_id = release_id
LEFT JOIN dead_letters ON dead_letters.order_id = release_id
WHERE releases.release_id = ANY($1::uuid[]) AND releases.reacquires IS NULL
  AND orders.status IS DISTINCT FROM 'cancelled' AND dead_letters.status IS DISTINCT FROM 'discarded'
  AND NOT EXISTS (SELECT FROM releases AS reacquired
                  WHERE reacquired.reacquires = releases.release_id AND status = 'applied');

-- name: reacquired_without_cause
-- P5. An order with reacquired stock is not cancelled, unless a job is about to recover it.
SELECT reacquires::text FROM releases JOIN orders ON order_id = reacquires
WHERE releases.reacquires = ANY($1::uuid[]) AND releases.status = 'applied' AND orders.status = 'cancelled'
  AND NOT EXISTS (SELECT FROM payments JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
                  WHERE payments.order_id = reacquires AND kind = 'payment.recover_order');

-- name: reacquired_other_units
-- P5. The reacquired units are the released units.
SELECT reacquired.reacquires::text FROM releases AS reacquired
LEFT JOIN releases AS released ON released.release_id = reacquired.reacquires
WHERE reacquired.reacquires = ANY($1::uuid[]) AND reacquired.units IS DISTINCT FROM (
    SELECT jsonb_object_agg(key, -value::bigint) FROM jsonb_each_text(released.units));

-- name: released_other_units
-- P5. The released units are the units of the order's lines.
SELECT release_id::text FROM releases JOIN orders ON order_id = release_id
WHERE releases.release_id = ANY($1::uuid[]) AND releases.units IS DISTINCT FROM (
    SELECT jsonb_object_agg(sku, units)
    FROM (SELECT sku, sum(quantity) AS units FROM order_lines WHERE order_lines.order_id = release_id
          GROUP BY sku) AS sums);

-- name: orders_without_lines
-- P2. An order is stored with its lines.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[])
  AND NOT EXISTS (SELECT FROM order_lines WHERE order_lines.order_id = orders.order_id);

-- name: wrong_totals
-- P2. The total of an order is the sum of its lines.
SELECT order_id::text FROM orders JOIN order_lines USING (order_id) WHERE order_id = ANY($1::uuid[])
GROUP BY order_id, total_minor HAVING sum(quantity * unit_price_minor) <> total_minor;

-- name: broken_histories
-- P8. Events are numbered from 1 without a gap, each starts at the status where the previous one ended, times never
-- decrease, each change is allowed, and the last one ends at the order's status.
WITH steps AS (
    SELECT order_id, seq, at, from_status, to_status, lag(to_status, 1, 'awaiting_payment') OVER history AS before,
           lag(at) OVER history AS before_at, row_number() OVER history AS number,
           last_value(to_status) OVER (PARTITION BY order_id ORDER BY seq
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final,
           count(*) OVER (PARTITION BY order_id) AS steps
    FROM order_events WHERE order_id = ANY($1::uuid[])
    WINDOW history AS (PARTITION BY order_id ORDER BY seq)
)
SELECT DISTINCT order_id::text FROM orders LEFT JOIN steps USING (order_id)
WHERE order_id = ANY($1::uuid[]) AND (
    (seq IS NULL AND (status <> 'awaiting_payment' OR status_seq <> 0))
    OR seq <> number OR from_status <> before OR at < before_at OR final <> status OR steps.steps <> status_seq
    OR NOT EXISTS (SELECT FROM order_transitions AS allowed
                   WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)
       AND seq IS NOT NULL);

-- name: count_dead_letters
SELECT count(*) FROM dead_letters WHERE status = 'held';

-- name: unbalanced_postings
-- P6. A posting adds up to 0. A trigger enforces it too, but an audit trusts no trigger.
SELECT posting FROM ledger WHERE order_id = ANY($1::uuid[])
GROUP BY posting, ledger.currency HAVING sum(amount_minor) <> 0;

-- name: payments_and_ledger
-- P6. Captures and refunds are in the ledger with the amounts of their rows.
SELECT payment_id::text FROM payments
LEFT JOIN (SELECT posting, -amount_minor AS amount FROM ledger WHERE account = 'orders') AS captured
       ON captured.posting = 'capture ' || payment_id
WHERE order_id = ANY($1::uuid[]) AND coalesce(captured.amount, 0)
      <> CASE payments.status WHEN 'captured' THEN payments.amount_minor ELSE 0 END
UNION ALL
SELECT refund_id::text FROM refunds
LEFT JOIN (SELECT posting, amount_minor AS amount FROM ledger WHERE account = 'orders') AS refunded
       ON refunded.posting = 'refund ' || refund_id
WHERE order_id = ANY($1::uuid[]) AND coalesce(refunded.amount, 0)
      <> CASE refunds.status WHEN 'done' THEN refunds.amount_minor ELSE 0 END
UNION ALL
SELECT payment_id::text FROM payments
WHERE order_id = ANY($1::uuid[]) AND refunded_minor <> (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                                          WHERE refunds.payment_id = payments.payment_id AND refunds.status = 'done');

-- name: money_without_order
-- P6. Captured money belongs to a paid order, is being refunded, or has a due job.
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
WHERE orders.order_id = ANY($1::uuid[]) AND payments.status = 'captured'
  AND payments.amount_minor > (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                               WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')
  AND (orders.status = 'cancelled'
       OR plan_revision < (SELECT max(plan_revision) FROM payments AS later WHERE later.order_id = payments.order_id))
  AND NOT EXISTS (SELECT FROM payments AS other JOIN jobs ON jobs.subject = other.payment_id AND queue = 'payments'
                  WHERE other.order_id = payments.order_id);

-- name: payments_without_job
-- P6. Something is still to be done about a pending payment or refund.
SELECT payment_id::text FROM payments WHERE order_id = ANY($1::uuid[]) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.subject = payment_id AND queue = 'payments')
UNION ALL
SELECT refund_id::text FROM refunds WHERE order_id = ANY($1::uuid[]) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.subject = refund_id AND queue = 'refunds');

-- name: paid_without_money
-- P6. The payments of a paid or confirmed order add up to its total. Refunds by staff are not subtracted. Refunds by the
-- payment worker are, because the order would still count as paid with that money.
SELECT orders.order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND is_order_sold(orders.status)
  AND EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id)
  AND total_minor <> (
      SELECT coalesce(sum(amount_minor - (
          SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
          WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed'
            AND actor = 'payment_worker')), 0)
      FROM payments
      WHERE payments.order_id = orders.order_id AND payments.status IN ('captured', 'authorised')
        AND plan_revision = (SELECT max(plan_revision) FROM payments AS last WHERE last.order_id = orders.order_id));

-- name: over_refunded
-- P6. Refunds of a payment never exceed its captured amount.
SELECT payment_id::text FROM payments
WHERE order_id = ANY($1::uuid[]) AND CASE payments.status WHEN 'captured' THEN payments.amount_minor ELSE 0 END < (
    SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
    WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed');

-- name: credit_and_ledger
-- P6. Store credit of users that these orders paid with or were refunded to equals its account in the ledger.
SELECT 'credit of ' || user_id FROM credit_accounts
WHERE user_id IN (SELECT substr(account, 8) FROM ledger WHERE order_id = ANY($1::uuid[]) AND account LIKE 'credit:%')
  AND balance_minor <> -coalesce((SELECT sum(amount_minor) FROM ledger WHERE account = 'credit:' || user_id
                                    AND ledger.currency = credit_accounts.currency), 0);

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

-- name: fulfilment_counts_out_of_order
-- P7. ordered >= planned >= shipped >= delivered >= returned. A constraint enforces it too, but an audit trusts none.
SELECT order_id || ' line ' || line_no || ' to ' || address_no FROM fulfilment_lines
WHERE order_id = ANY($1::uuid[]) AND NOT (0 <= returned AND returned <= delivered AND delivered <= shipped AND shipped <= planned
                            AND planned <= ordered);

-- name: fulfilment_and_shipments
-- P7. The counts of a fulfilment line are those of its shipments and of its order line.
WITH in_shipments AS (
    SELECT shipment_lines.order_id, line_no, shipment_lines.address_no,
           sum(quantity) FILTER (WHERE shipments.status NOT IN ('cancelled', 'lost', 'returned_to_sender')) AS planned,
           sum(quantity) FILTER (WHERE shipments.status IN ('picked_up', 'in_transit', 'out_for_delivery', 'delivered'))
               AS shipped,
           sum(quantity) FILTER (WHERE shipments.status = 'delivered') AS delivered
    FROM shipment_lines JOIN shipments USING (shipment_id)
    WHERE shipment_lines.order_id = ANY($1::uuid[]) GROUP BY shipment_lines.order_id, line_no, shipment_lines.address_no
)
SELECT fulfilment_lines.order_id || ' line ' || line_no || ' to ' || address_no
FROM fulfilment_lines JOIN order_lines USING (order_id, line_no, address_no)
LEFT JOIN in_shipments USING (order_id, line_no, address_no)
WHERE fulfilment_lines.order_id = ANY($1::uuid[]) AND (ordered, fulfilment_lines.planned, fulfilment_lines.shipped, fulfilment_lines.delivered)
      IS DISTINCT FROM (quantity, coalesce(in_shipments.planned, 0), coalesce(in_shipments.shipped, 0),
                        coalesce(in_shipments.delivered, 0));

-- name: shipped_without_counts
-- P7. All units of a delivered order are delivered, and a fulfilling order has units that are not shipped.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND (
    (status IN ('delivered', 'completed') AND EXISTS (
        SELECT FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
        WHERE order_lines.order_id = orders.order_id AND delivered IS DISTINCT FROM quantity))
    OR (status = 'fulfilling' AND NOT EXISTS (
        SELECT FROM fulfilment_lines WHERE fulfilment_lines.order_id = orders.order_id AND shipped < ordered)));

-- name: booked_twice
-- P7. A shipment has one current booking at most.
SELECT shipment_id::text FROM bookings JOIN shipments USING (shipment_id)
WHERE order_id = ANY($1::uuid[]) AND outcome IN ('requested', 'booked') GROUP BY shipment_id HAVING count(*) > 1;

-- name: shipped_without_booking
-- P7. A shipment that is booked or with a carrier has a booking with its carrier and tracking number.
SELECT shipment_id::text FROM shipments
WHERE order_id = ANY($1::uuid[]) AND shipments.status NOT IN ('planned', 'cancelled') AND NOT EXISTS (
    SELECT FROM bookings WHERE bookings.booking_id = shipments.booking_id AND outcome = 'booked'
      AND bookings.tracking_no = shipments.tracking_no AND bookings.carrier = shipments.carrier);

-- name: paid_without_fulfilment
-- P7. A paid order has a fulfilment.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND is_order_sold(status)
  AND NOT EXISTS (SELECT FROM fulfilments WHERE fulfilments.order_id = orders.order_id);

-- name: broken_shipment_histories
-- P8. Each change of a shipment starts at the status where the previous one ended, and the last one ends at its status.
WITH steps AS (
    SELECT shipment_id, seq, from_status, to_status, lag(to_status, 1, 'planned') OVER history AS before,
           last_value(to_status) OVER (PARTITION BY shipment_id ORDER BY seq
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final
    FROM shipment_events WHERE order_id = ANY($1::uuid[]) AND to_status IS NOT NULL
    WINDOW history AS (PARTITION BY shipment_id ORDER BY seq)
)
SELECT DISTINCT shipments.shipment_id::text FROM shipments LEFT JOIN steps USING (shipment_id)
WHERE shipments.order_id = ANY($1::uuid[]) AND (
    (seq IS NULL AND shipments.status <> 'planned') OR from_status <> before OR final <> shipments.status
    OR (seq IS NOT NULL AND NOT EXISTS (
        SELECT FROM shipment_transitions AS allowed
        WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)));
