-- name: allow_long_statements
SET LOCAL statement_timeout = '600s';

-- name: list_items
SELECT sku, initial_units, limit_bound FROM sale_items WHERE sale_id = $1;

-- name: list_stock_changes
-- Stock changes that may have been applied by the cut; those that are marked have their (epoch, seq).
SELECT change_id, sku, delta AS units, status, epoch, seq, created_at FROM stock_changes
WHERE sale_id = $1 AND status IN ('pending', 'applied');

-- name: sum_applied_releases
-- Released units by SKU at the cut, of releases that are marked.
SELECT key AS sku, sum(value::bigint)::bigint AS units FROM releases, jsonb_each_text(units)
WHERE sale_id = $1 AND status = 'applied' AND (epoch < $2 OR (epoch = $2 AND seq <= $3)) GROUP BY key;

-- name: list_open_releases
-- Releases that are not marked. Redis may have applied them already.
SELECT release_id, user_id, units, created_at FROM releases WHERE sale_id = $1 AND status = 'pending';

-- name: read_epochs
SELECT epoch, loaded_epoch FROM sales WHERE sale_id = $1;

-- name: sum_reserved
-- Units by SKU of stored orders that were accepted up to the cut: all of them, and those that are sold.
SELECT sku, sum(quantity)::bigint AS reserved,
       coalesce(sum(quantity) FILTER (WHERE status NOT IN ('awaiting_payment', 'cancelled')), 0)::bigint AS sold
FROM order_lines JOIN orders USING (order_id)
WHERE sale_id = $1 AND (accepted_at, entry_seq) <= ($2, $3) GROUP BY sku;

-- name: sum_dead_letters
SELECT key AS sku, sum(value::bigint)::bigint AS units FROM dead_letters, jsonb_each_text(units)
WHERE sale_id = $1 AND status <> 'retried' AND (entry_at, entry_seq) <= ($2, $3) GROUP BY key;

-- name: count_orders
SELECT count(*) FROM orders WHERE sale_id = $1;

-- name: unreadable_dead_letters
SELECT order_id::text FROM dead_letters WHERE sale_id = $1 AND units IS NULL AND status = 'held';

-- name: repeated_keys
-- P3. A constraint forbids it too, but an audit trusts no constraint. Of this sale's orders; the other one may be of any.
SELECT DISTINCT user_id || ' ' || idempotency_key FROM orders JOIN orders AS other USING (user_id, idempotency_key)
WHERE orders.sale_id = $1 AND other.order_id <> orders.order_id;

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

-- name: cancelled_without_release
-- P5. The stock of a cancelled order is released.
SELECT order_id::text FROM orders LEFT JOIN releases ON release_id = order_id
WHERE orders.sale_id = $1 AND orders.status = 'cancelled' AND release_id IS NULL;

-- name: orphan_releases
-- P5. A release belongs to a cancelled order, or to a discarded dead letter.
SELECT release_id::text FROM releases
LEFT JOIN orders ON orders.order_id = release_id
LEFT JOIN dead_letters ON dead_letters.order_id = release_id
WHERE releases.sale_id = $1 AND releases.reacquires IS NULL
  AND orders.status IS DISTINCT FROM 'cancelled' AND dead_letters.status IS DISTINCT FROM 'discarded'
  AND NOT EXISTS (SELECT FROM releases AS reacquired
                  WHERE reacquired.reacquires = releases.release_id AND status = 'applied');

-- name: reacquired_without_cause
-- P5. An order with reacquired stock is not cancelled, unless a job is about to recover it.
SELECT reacquires::text FROM releases JOIN orders ON order_id = reacquires
WHERE releases.sale_id = $1 AND releases.status = 'applied' AND orders.status = 'cancelled'
  AND NOT EXISTS (SELECT FROM payments WHERE payments.order_id = reacquires AND task = 'recover_order');

-- name: reacquired_other_units
-- P5. The reacquired units are the released units.
SELECT reacquired.reacquires::text FROM releases AS reacquired
LEFT JOIN releases AS released ON released.release_id = reacquired.reacquires
WHERE reacquired.sale_id = $1 AND reacquired.reacquires IS NOT NULL AND reacquired.units IS DISTINCT FROM (
    SELECT jsonb_object_agg(key, -value::bigint) FROM jsonb_each_text(released.units));

-- name: released_other_units
-- P5. The released units are the units of the order's lines.
SELECT release_id::text FROM releases JOIN orders ON order_id = release_id
WHERE releases.sale_id = $1 AND releases.units IS DISTINCT FROM (
    SELECT jsonb_object_agg(sku, units)
    FROM (SELECT sku, sum(quantity) AS units FROM order_lines WHERE order_lines.order_id = release_id
          GROUP BY sku) AS sums);

-- name: orders_without_lines
-- P2. An order is stored with its lines.
SELECT order_id::text FROM orders WHERE sale_id = $1
  AND NOT EXISTS (SELECT FROM order_lines WHERE order_lines.order_id = orders.order_id);

-- name: wrong_totals
-- P2. The total of an order is the sum of its lines.
SELECT order_id::text FROM orders JOIN order_lines USING (order_id) WHERE sale_id = $1
GROUP BY order_id, total_minor HAVING sum(quantity * unit_price_minor) <> total_minor;

-- name: broken_histories
-- P8. Events are numbered from 1 without a gap, each starts at the status where the previous one ended, times never
-- decrease, each change is allowed, and the last one ends at the order's status.
WITH steps AS (
    SELECT order_id, seq, at, from_status, to_status,
           lag(to_status, 1, 'awaiting_payment') OVER history AS before,
           lag(at) OVER history AS before_at,
           row_number() OVER history AS number,
           last_value(to_status) OVER (PARTITION BY order_id ORDER BY seq
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final,
           count(*) OVER (PARTITION BY order_id) AS steps
    FROM order_events JOIN orders USING (order_id) WHERE sale_id = $1
    WINDOW history AS (PARTITION BY order_id ORDER BY seq)
)
SELECT DISTINCT order_id::text FROM orders LEFT JOIN steps USING (order_id)
WHERE sale_id = $1 AND (
    (seq IS NULL AND (status <> 'awaiting_payment' OR status_seq <> 0))
    OR seq <> number OR from_status <> before OR at < before_at OR final <> status OR steps.steps <> status_seq
    OR NOT EXISTS (SELECT FROM order_transitions AS allowed
                   WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)
       AND seq IS NOT NULL);

-- name: count_waiting
SELECT (SELECT count(*) FROM dead_letters WHERE status = 'held') AS dead_letters,
       (SELECT count(*) FROM payments WHERE parked) AS parked_payments,
       (SELECT count(*) FROM refunds WHERE parked) AS parked_refunds,
       (SELECT coalesce(greatest(extract(epoch FROM $1 - min(due_at)), 0), 0)::float8
        FROM payments WHERE task IS NOT NULL AND NOT parked) AS oldest_payment_s,
       (SELECT coalesce(greatest(extract(epoch FROM $1 - min(due_at)), 0), 0)::float8
        FROM refunds WHERE status = 'pending' AND NOT parked) AS oldest_refund_s;

-- name: unbalanced_postings
-- P6. A posting adds up to 0. A trigger enforces it too, but an audit trusts no trigger. Only of this sale's orders.
SELECT posting FROM ledger JOIN orders USING (order_id) WHERE sale_id = $1
GROUP BY posting, ledger.currency HAVING sum(amount_minor) <> 0;

-- name: payments_and_ledger
-- P6. Captures and refunds are in the ledger with the amounts of their rows.
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
LEFT JOIN (SELECT posting, -amount_minor AS amount FROM ledger WHERE account = 'orders') AS captured
       ON captured.posting = 'capture ' || payment_id
WHERE sale_id = $1 AND coalesce(captured.amount, 0)
      <> CASE payments.status WHEN 'captured' THEN payments.amount_minor ELSE 0 END
UNION ALL
SELECT refund_id::text FROM refunds JOIN orders USING (order_id)
LEFT JOIN (SELECT posting, amount_minor AS amount FROM ledger WHERE account = 'orders') AS refunded
       ON refunded.posting = 'refund ' || refund_id
WHERE sale_id = $1 AND coalesce(refunded.amount, 0)
      <> CASE refunds.status WHEN 'done' THEN refunds.amount_minor ELSE 0 END
UNION ALL
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
WHERE sale_id = $1 AND refunded_minor <> (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                                          WHERE refunds.payment_id = payments.payment_id AND refunds.status = 'done');

-- name: money_without_order
-- P6. Captured money belongs to a paid order, is being refunded, or has a due job.
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
WHERE sale_id = $1 AND payments.status = 'captured' AND task IS NULL
  AND payments.amount_minor > (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                               WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')
  AND (orders.status = 'cancelled'
       OR plan_revision < (SELECT max(plan_revision) FROM payments AS later WHERE later.order_id = payments.order_id))
  AND NOT EXISTS (SELECT FROM payments AS other WHERE other.order_id = payments.order_id AND other.task IS NOT NULL);

-- name: paid_without_money
-- P6. The payments of a paid or confirmed order add up to its total. Refunds by staff are not subtracted. Refunds by the
-- payment worker are, because the order would still count as paid with that money.
SELECT orders.order_id::text FROM orders WHERE sale_id = $1
  AND orders.status IN ('paid', 'confirmed', 'fulfilling', 'shipped', 'delivered', 'completed')
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
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
WHERE sale_id = $1 AND CASE payments.status WHEN 'captured' THEN payments.amount_minor ELSE 0 END < (
    SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
    WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed');

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
SELECT order_id || ' line ' || line_no || ' to ' || address_no FROM fulfilment_lines JOIN orders USING (order_id)
WHERE sale_id = $1 AND NOT (0 <= returned AND returned <= delivered AND delivered <= shipped AND shipped <= planned
                            AND planned <= ordered);

-- name: fulfilment_and_shipments
-- P7. The counts of a fulfilment line are those of its shipments and of its order line.
WITH in_shipments AS (
    SELECT shipment_lines.order_id, line_no, shipment_lines.address_no,
           sum(quantity) FILTER (WHERE shipments.status NOT IN ('cancelled', 'lost', 'returned_to_sender')) AS planned,
           sum(quantity) FILTER (WHERE shipments.status IN ('picked_up', 'in_transit', 'out_for_delivery',
                                                           'delivered'))
               AS shipped,
           sum(quantity) FILTER (WHERE shipments.status = 'delivered') AS delivered
    FROM shipment_lines JOIN shipments USING (shipment_id) JOIN orders ON orders.order_id = shipments.order_id
    WHERE sale_id = $1 GROUP BY shipment_lines.order_id, line_no, shipment_lines.address_no
)
SELECT fulfilment_lines.order_id || ' line ' || line_no || ' to ' || address_no
FROM fulfilment_lines JOIN orders USING (order_id) JOIN order_lines USING (order_id, line_no, address_no)
LEFT JOIN in_shipments USING (order_id, line_no, address_no)
WHERE sale_id = $1 AND (ordered, fulfilment_lines.planned, fulfilment_lines.shipped, fulfilment_lines.delivered)
      IS DISTINCT FROM (quantity, coalesce(in_shipments.planned, 0), coalesce(in_shipments.shipped, 0),
                        coalesce(in_shipments.delivered, 0));

-- name: shipped_without_counts
-- P7. All units of a delivered order are delivered, and a fulfilling order has units that are not shipped.
SELECT order_id::text FROM orders WHERE sale_id = $1 AND (
    (status IN ('delivered', 'completed') AND EXISTS (
        SELECT FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
        WHERE order_lines.order_id = orders.order_id AND delivered IS DISTINCT FROM quantity))
    OR (status = 'fulfilling' AND NOT EXISTS (
        SELECT FROM fulfilment_lines WHERE fulfilment_lines.order_id = orders.order_id AND shipped < ordered)));

-- name: booked_twice
-- P7. A shipment has one current booking at most.
SELECT shipment_id::text FROM bookings JOIN shipments USING (shipment_id) JOIN orders USING (order_id)
WHERE sale_id = $1 AND outcome IN ('requested', 'booked') GROUP BY shipment_id HAVING count(*) > 1;

-- name: shipped_without_booking
-- P7. A shipment that is booked or with a carrier has a booking with its carrier and tracking number.
SELECT shipment_id::text FROM shipments JOIN orders USING (order_id)
WHERE sale_id = $1 AND shipments.status NOT IN ('planned', 'cancelled') AND NOT EXISTS (
    SELECT FROM bookings WHERE bookings.booking_id = shipments.booking_id AND outcome = 'booked'
      AND bookings.tracking_no = shipments.tracking_no AND bookings.carrier = shipments.carrier);

-- name: paid_without_fulfilment
-- P7. A paid order has a fulfilment.
SELECT order_id::text FROM orders WHERE sale_id = $1
  AND status IN ('paid', 'confirmed', 'fulfilling', 'shipped', 'delivered', 'completed')
  AND NOT EXISTS (SELECT FROM fulfilments WHERE fulfilments.order_id = orders.order_id);

-- name: broken_shipment_histories
-- P8. Each change of a shipment starts at the status where the previous one ended, and the last one ends at its status.
WITH steps AS (
    SELECT shipment_id, seq, from_status, to_status,
           lag(to_status, 1, 'planned') OVER history AS before,
           last_value(to_status) OVER (PARTITION BY shipment_id ORDER BY seq
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final
    FROM shipment_events JOIN orders USING (order_id) WHERE sale_id = $1 AND to_status IS NOT NULL
    WINDOW history AS (PARTITION BY shipment_id ORDER BY seq)
)
SELECT DISTINCT shipments.shipment_id::text FROM shipments JOIN orders USING (order_id)
LEFT JOIN steps USING (shipment_id)
WHERE sale_id = $1 AND (
    (seq IS NULL AND shipments.status <> 'planned')
    OR from_status <> before OR final <> shipments.status
    OR (seq IS NOT NULL AND NOT EXISTS (
        SELECT FROM shipment_transitions AS allowed
        WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)));
