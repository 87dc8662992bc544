-- name: orders_without_lines
-- P2. An order is stored with its lines.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[])
  AND NOT EXISTS (SELECT FROM order_lines WHERE order_lines.order_id = orders.order_id);

-- name: wrong_totals
-- P2. The total of an order is what its lines cost, with freight and the fee for cash on delivery.
SELECT order_id::text FROM orders JOIN order_lines USING (order_id) WHERE order_id = ANY($1::uuid[])
GROUP BY order_id, total_minor, freight_minor, cod_fee_minor
HAVING sum(quantity * unit_price_minor - order_lines.discount_minor) + freight_minor + cod_fee_minor <> total_minor;

-- name: wrong_discounts
-- P2. The discount of an order is the sum of those of its lines, and of those of its promotions.
SELECT order_id::text FROM orders WHERE order_id = ANY($1::uuid[])
  AND (discount_minor <> (SELECT coalesce(sum(order_lines.discount_minor), 0) FROM order_lines
                          WHERE order_lines.order_id = orders.order_id)
       OR discount_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM order_discounts
                             WHERE order_discounts.order_id = orders.order_id));

-- name: wrong_freight
-- P2. The freight of an order is the sum of that of its addresses.
SELECT order_id::text FROM orders WHERE order_id = ANY($1::uuid[])
  AND freight_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM order_freight
                        WHERE order_freight.order_id = orders.order_id);

-- name: repeated_keys
-- P3. A constraint forbids it too, but an audit trusts no constraint. The other order may be of any sale.
SELECT DISTINCT user_id || ' ' || idempotency_key FROM orders JOIN orders AS other USING (user_id, idempotency_key)
WHERE orders.order_id = ANY($1::uuid[]) AND other.order_id <> orders.order_id;

-- name: cancelled_without_release
-- P5. The stock of a cancelled order is released, at its end or in parts before.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND orders.status = 'cancelled'
  AND NOT EXISTS (SELECT FROM releases WHERE release_id = orders.order_id)
  AND NOT EXISTS (SELECT FROM releases WHERE releases.part_of = orders.order_id);

-- name: releases_without_job
-- P5. A job is about to apply each pending release, or to reacquire the stock of an order.
SELECT release_id::text FROM releases
WHERE releases.release_id = ANY($1::uuid[]) AND status = 'pending' AND reacquires IS NULL
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = release_id AND queue = 'releases')
UNION ALL
SELECT release_id::text FROM releases
WHERE releases.part_of = ANY($1::uuid[]) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = release_id AND queue = 'releases')
UNION ALL
SELECT release_id::text FROM releases
WHERE releases.reacquires = ANY($1::uuid[]) AND releases.status = 'pending'
  AND NOT EXISTS (SELECT FROM payments JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
                  WHERE payments.order_id = reacquires AND kind = 'payment.recover_order');

-- name: orphan_releases
-- P5. A release belongs to a cancelled order, or to a discarded dead letter; a partial one to a paid order that may be
-- cancelled by now, of the same sale and customer.
SELECT release_id::text FROM releases LEFT JOIN orders ON orders.order_id = release_id
LEFT JOIN dead_letters ON dead_letters.order_id = release_id
WHERE releases.release_id = ANY($1::uuid[]) AND releases.reacquires IS NULL AND releases.part_of IS NULL
  AND orders.status IS DISTINCT FROM 'cancelled' AND dead_letters.status IS DISTINCT FROM 'discarded'
  AND NOT EXISTS (SELECT FROM releases AS reacquired
                  WHERE reacquired.reacquires = releases.release_id AND status = 'applied')
UNION ALL
SELECT release_id::text FROM releases LEFT JOIN orders ON order_id = part_of
WHERE releases.part_of = ANY($1::uuid[])
  AND (orders.status IS NULL OR orders.status = 'awaiting_payment'
       OR (releases.sale_id, releases.user_id) <> (orders.sale_id, orders.user_id));

-- name: released_other_units
-- P5. The released units are those of the order's lines and coupons: of a cancelled order all, over all its releases; of
-- another one no more, and a part of a release is written off. A release of an order that expired is whole.
SELECT orders.order_id::text FROM orders, units_left(orders.order_id) AS units_left
WHERE orders.order_id = ANY($1::uuid[])
  AND CASE WHEN orders.status <> 'cancelled' THEN units_left.units < 0
           ELSE cancel_reason <> 'expired' AND EXISTS (SELECT FROM releases WHERE releases.part_of = orders.order_id
                                                       OR release_id = orders.order_id) END
UNION
SELECT release_id::text FROM releases JOIN orders ON order_id = release_id
WHERE releases.release_id = ANY($1::uuid[])
  AND (orders.cancel_reason = 'expired'
       OR EXISTS (SELECT FROM releases AS reacquired WHERE reacquired.reacquires = releases.release_id))
  AND releases.units IS DISTINCT FROM (
      SELECT jsonb_object_agg(sku, units)
      FROM (SELECT sku, sum(quantity) AS units FROM order_units WHERE order_units.order_id = release_id
            GROUP BY sku) AS sums)
UNION
SELECT release_id::text FROM releases
WHERE (releases.release_id = ANY($1::uuid[]) OR releases.part_of = ANY($1::uuid[]))
  AND NOT is_part_of_units(written_off, units);

-- name: reacquired_without_cause
-- P5. An order with reacquired stock is not expired, unless a job is about to recover it. It may be cancelled again.
SELECT reacquires::text FROM releases JOIN orders ON order_id = reacquires
WHERE releases.reacquires = ANY($1::uuid[]) AND releases.status = 'applied' AND orders.cancel_reason = 'expired'
  AND NOT EXISTS (SELECT FROM payments JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
                  WHERE payments.order_id = reacquires AND kind = 'payment.recover_order');

-- name: reacquired_other_units
-- P5. The reacquired units are the released units.
SELECT reacquired.reacquires::text FROM releases AS reacquired
LEFT JOIN releases AS released ON released.release_id = reacquired.reacquires
WHERE reacquired.reacquires = ANY($1::uuid[]) AND reacquired.units IS DISTINCT FROM (
    SELECT jsonb_object_agg(key, -value::bigint) FROM jsonb_each_text(released.units));

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
      <> payments.captured_minor
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

-- name: captures_on_other_accounts
-- P6. Captured money comes from the account of its own provider or customer, or from collected cash, and refunds go back
-- the way that their row says.
SELECT ledger.posting FROM payments JOIN ledger ON posting = 'capture ' || payment_id AND account <> 'orders'
WHERE payments.order_id = ANY($1::uuid[]) AND NOT CASE method
    WHEN 'balance' THEN account = 'credit:' || user_id
    WHEN 'cod' THEN account IN ('collected', 'cash')
    ELSE account = 'provider:' || method END
UNION ALL
SELECT ledger.posting FROM refunds JOIN payments USING (payment_id)
JOIN ledger ON posting = 'refund ' || refund_id AND account <> 'orders'
WHERE refunds.order_id = ANY($1::uuid[]) AND NOT CASE way
    WHEN 'provider' THEN account = 'provider:' || method
    WHEN 'transfer' THEN account = 'bank'
    ELSE account = 'credit:' || user_id END;

-- name: orphan_postings
-- P6. Captures, refunds and collected cash belong to a payment, a refund, a delivered shipment or a payment on delivery.
SELECT posting FROM postings
CROSS JOIN LATERAL (
    SELECT CASE WHEN posting ~ '^[a-z]+ [0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+$'
                     AND length(split_part(posting, ' ', 2)) = 36 THEN split_part(posting, ' ', 2)::uuid END AS id
) AS subject
WHERE postings.order_id = ANY($1::uuid[]) AND NOT CASE kind
    WHEN 'capture' THEN EXISTS (SELECT FROM payments WHERE payment_id = id AND payments.order_id = postings.order_id)
    WHEN 'refund' THEN EXISTS (SELECT FROM refunds WHERE refund_id = id AND refunds.order_id = postings.order_id)
    WHEN 'cash_collected' THEN
        EXISTS (SELECT FROM shipments WHERE shipment_id = id AND shipments.order_id = postings.order_id
                AND cod_collected_at IS NOT NULL)
        OR EXISTS (SELECT FROM payments WHERE payment_id = id AND payments.order_id = postings.order_id AND method = 'cod')
    ELSE true END
UNION ALL
SELECT posting FROM ledger WHERE order_id = ANY($1::uuid[])
  AND NOT EXISTS (SELECT FROM postings WHERE postings.posting = ledger.posting);

-- name: cash_and_shipments
-- P6. The cash of each delivered shipment is posted once, to whoever has it. Orders that were captured from the account
-- `cash` are older than that.
SELECT shipment_id::text FROM shipments
LEFT JOIN ledger ON posting = 'cash ' || shipment_id AND account = 'collected'
WHERE shipments.order_id = ANY($1::uuid[]) AND cod_collected_at IS NOT NULL AND coalesce(-amount_minor, 0) <> cod_minor
  AND NOT EXISTS (SELECT FROM ledger AS earlier WHERE earlier.order_id = shipments.order_id AND account = 'cash');

-- name: uncaptured_cash
-- P6. Collected cash is captured, or an order waits for the rest of it; no more is captured than was collected.
SELECT ledger.order_id::text FROM ledger WHERE ledger.order_id = ANY($1::uuid[]) AND account = 'collected'
GROUP BY ledger.order_id
HAVING sum(amount_minor) > 0 OR (sum(amount_minor) < 0 AND NOT EXISTS (
    SELECT FROM payments WHERE payments.order_id = ledger.order_id AND method = 'cod' AND payments.status = 'authorised'));

-- name: freight_refunded_again
-- P6. Not more freight is refunded than an order has.
SELECT order_id::text FROM refund_grants JOIN orders USING (order_id) WHERE order_id = ANY($1::uuid[])
GROUP BY order_id, orders.freight_minor, cod_fee_minor HAVING sum(refund_grants.freight_minor) > orders.freight_minor + cod_fee_minor;

-- name: refunds_and_ways
-- P6. The money of a refund went where its way says. Another way has its proof, and a transfer a second person. Refunds of
-- earlier versions have no way.
SELECT refund_id::text FROM refunds JOIN payments USING (payment_id) LEFT JOIN refund_other_ways AS other USING (refund_id)
WHERE refunds.order_id = ANY($1::uuid[]) AND refunds.way IS NOT NULL AND (
    NOT EXISTS (SELECT FROM ledger WHERE posting = 'refund ' || refund_id AND account = CASE refunds.way
        WHEN 'provider' THEN 'provider:' || method WHEN 'transfer' THEN 'bank' ELSE 'credit:' || user_id END)
    OR CASE refunds.way WHEN 'provider' THEN false
       WHEN 'transfer' THEN other.way IS DISTINCT FROM 'transfer' OR other.confirmed_by IS NULL
       ELSE method NOT IN ('balance', 'cod') AND other.way IS DISTINCT FROM 'store_credit' END);

-- name: credit_and_ledger
-- P6. Store credit of users that these orders paid with or were refunded to equals its account in the ledger.
SELECT 'credit of ' || user_id FROM credit_accounts
WHERE user_id IN (SELECT substr(account, 8) FROM ledger WHERE order_id = ANY($1::uuid[]) AND account LIKE 'credit:%')
  AND balance_minor <> -coalesce((SELECT sum(amount_minor) FROM ledger WHERE account = 'credit:' || user_id
                                    AND ledger.currency = credit_accounts.currency), 0);

-- name: money_without_order
-- P6. Captured money belongs to a paid order, is being refunded, or has a due job. Of an order that was cancelled after
-- it was paid, refund grants decide what comes back.
SELECT payment_id::text FROM payments JOIN orders USING (order_id)
WHERE orders.order_id = ANY($1::uuid[]) AND payments.status = 'captured'
  AND payments.captured_minor > (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
                               WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed')
  AND ((orders.status = 'cancelled'
        AND NOT EXISTS (SELECT FROM refund_grants WHERE refund_grants.order_id = orders.order_id))
       OR plan_revision < (SELECT max(plan_revision) FROM payments AS later WHERE later.order_id = payments.order_id))
  AND NOT EXISTS (SELECT FROM payments AS other JOIN jobs ON jobs.subject = other.payment_id AND queue = 'payments'
                  WHERE other.order_id = payments.order_id);

-- name: paid_without_money
-- P6. The payments of a paid or confirmed order add up to its total. Refunds by staff are not subtracted. Refunds by the
-- payment worker are, because the order would still count as paid with that money. Cash that is not collected because
-- units were cancelled counts.
SELECT orders.order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND is_order_sold(orders.status)
  AND EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id)
  AND total_minor <> (
      SELECT coalesce(sum(amount_minor - (
          SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
          WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed'
            AND actor = 'payment_worker')), 0)
      FROM payments
      WHERE payments.order_id = orders.order_id
        AND (payments.status IN ('captured', 'authorised')
             OR (method = 'cod' AND payments.status = 'closed'))
        AND plan_revision = (SELECT max(plan_revision) FROM payments AS last WHERE last.order_id = orders.order_id));

-- name: wrong_exchanges
-- P6. What was paid for exchanged units is taken off the price of their replacement or refunded, and nothing else is. If
-- they are refunded as returned, their replacement is not sold.
SELECT case_id::text FROM exchanges JOIN cases USING (case_id)
JOIN orders AS replacement ON replacement.order_id = replacement_id
LEFT JOIN refund_grants ON refund_grants.grant_id = cases.grant_id
WHERE exchanges.order_id = ANY($1::uuid[]) AND exchanges.status = 'done'
  AND (refund_grants.amount_minor IS DISTINCT FROM credit_minor - replacement.discount_minor
       OR replacement.user_id <> cases.user_id)
UNION ALL
SELECT case_id::text FROM exchanges JOIN orders AS replacement ON replacement.order_id = replacement_id
WHERE exchanges.order_id = ANY($1::uuid[]) AND exchanges.status = 'returned' AND is_order_sold(replacement.status)
UNION ALL
SELECT order_id::text FROM order_discounts WHERE order_discounts.order_id = ANY($1::uuid[]) AND promotion_id = '@exchange'
  AND NOT EXISTS (SELECT FROM exchanges WHERE replacement_id = order_discounts.order_id);

-- name: payments_without_job
-- P6. Something is still to be done about a pending payment or refund.
SELECT payment_id::text FROM payments WHERE order_id = ANY($1::uuid[]) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.subject = payment_id AND queue = 'payments')
UNION ALL
SELECT refund_id::text FROM refunds WHERE order_id = ANY($1::uuid[]) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.subject = refund_id AND queue = 'refunds');

-- name: over_refunded
-- P6. Refunds of a payment never exceed its captured amount.
SELECT payment_id::text FROM payments
WHERE order_id = ANY($1::uuid[]) AND payments.captured_minor < (
    SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
    WHERE refunds.payment_id = payments.payment_id AND refunds.status <> 'failed');

-- name: fulfilment_counts_out_of_order
-- P7. ordered - cancelled >= planned >= shipped >= delivered >= returned. A constraint enforces it too, but an audit
-- trusts none.
SELECT order_id || ' line ' || line_no || ' to ' || address_no FROM fulfilment_lines
WHERE order_id = ANY($1::uuid[])
  AND NOT (0 <= returned AND returned <= delivered AND delivered <= shipped AND shipped <= planned
           AND planned <= ordered - cancelled AND 0 <= cancelled AND cancelling BETWEEN 0 AND ordered - cancelled - delivered);

-- name: fulfilment_and_cancellations
-- P7. The cancelled units of a fulfilment line are those of its cancellations, and so are those that are to be cancelled.
-- Of a cancelled order that was paid all are, and of cancelled units those that were shipped are none.
SELECT order_id || ' line ' || line_no || ' to ' || address_no
FROM fulfilment_lines JOIN orders USING (order_id) LEFT JOIN (
    SELECT cancellation_lines.order_id, line_no, address_no, sum(cancelled) AS cancelled,
           sum(quantity - cancelled - kept) FILTER (WHERE status = 'open') AS cancelling,
           sum(quantity - cancelled - kept) FILTER (WHERE status = 'done') AS forgotten
    FROM cancellation_lines JOIN cancellations USING (cancellation_id)
    WHERE cancellation_lines.order_id = ANY($1::uuid[])
    GROUP BY cancellation_lines.order_id, line_no, address_no
) AS asked USING (order_id, line_no, address_no)
WHERE fulfilment_lines.order_id = ANY($1::uuid[])
  AND ((fulfilment_lines.cancelled, fulfilment_lines.cancelling)
       IS DISTINCT FROM (coalesce(asked.cancelled, 0), coalesce(asked.cancelling, 0))
       OR forgotten > 0 OR (orders.status = 'cancelled' AND fulfilment_lines.cancelled < ordered));

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
-- P7. All units of a delivered order are delivered or cancelled, and a fulfilling order has units that are not shipped.
SELECT order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[]) AND (
    (status IN ('delivered', 'completed') AND EXISTS (
        SELECT FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no)
        WHERE order_lines.order_id = orders.order_id AND delivered IS DISTINCT FROM quantity - cancelled))
    OR (status = 'fulfilling' AND NOT EXISTS (
        SELECT FROM fulfilment_lines
        WHERE fulfilment_lines.order_id = orders.order_id AND shipped < ordered - cancelled)));

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

-- name: orders_without_job
-- P7. A job is about to plan each paid order or to cancel a refunded one, and to complete each delivered one.
SELECT order_id::text FROM fulfilments JOIN orders USING (order_id)
WHERE fulfilments.order_id = ANY($1::uuid[])
  AND (fulfilments.status = 'delivered' OR (fulfilments.status = 'pending' AND orders.status IN ('paid', 'confirmed')))
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = fulfilments.order_id AND queue IN ('fulfilments', 'cancellations'));

-- name: orders_without_end
-- P7. Whatever an order waits for comes: a shipment that is under way, or a job that plans its units or decides about
-- them. A cancellation waits for a shipment that is being stopped, or for its job.
SELECT order_id::text FROM orders
WHERE orders.order_id = ANY($1::uuid[]) AND status IN ('fulfilling', 'shipped')
  AND NOT EXISTS (SELECT FROM shipments WHERE shipments.order_id = orders.order_id AND ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = orders.order_id AND queue IN ('fulfilments', 'cancellations'))
UNION
SELECT order_id::text FROM cancellations
WHERE cancellations.order_id = ANY($1::uuid[]) AND status = 'open'
  AND NOT EXISTS (SELECT FROM shipments WHERE shipments.order_id = cancellations.order_id AND after_cancel = 'cancelled')
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = cancellations.order_id AND queue = 'cancellations');

-- name: shipments_without_job
-- P7. A job is about to book each shipment, to cancel its booking or to poll it. Staff book the carriers that are not
-- named here, and may have cancelled a poll.
SELECT shipment_id::text FROM shipments
WHERE shipments.order_id = ANY($1::uuid[]) AND ended_at IS NULL
  AND (after_cancel IS NOT NULL
       OR (status = 'planned' AND (booking_id IS NOT NULL OR carrier IS NULL OR carrier IN ('sf_express', 'own_fleet')))
       OR (status <> 'planned' AND tracking_no IS NOT NULL AND NOT EXISTS (
           SELECT FROM shipment_events AS event
           WHERE event.order_id = shipments.order_id AND event.shipment_id = shipments.shipment_id
             AND event.source = 'staff' AND event.code = 'poll_cancelled')))
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = shipment_id AND queue = 'shipments');

-- name: broken_histories
-- P8. Events are numbered from 1 without a gap and times never decrease. Of those that change the status each starts at
-- the status where the previous one ended, each change is allowed, and the last one ends at the order's status.
WITH history AS (
    SELECT order_id, seq, at, lag(at) OVER events AS before_at, row_number() OVER events AS number,
           count(*) OVER (PARTITION BY order_id) AS events
    FROM order_events WHERE order_id = ANY($1::uuid[]) WINDOW events AS (PARTITION BY order_id ORDER BY seq)
), steps AS (
    SELECT order_id, seq, from_status, to_status, lag(to_status, 1, 'awaiting_payment') OVER steps AS before,
           last_value(to_status) OVER (PARTITION BY order_id ORDER BY seq
               RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS final
    FROM order_events WHERE order_id = ANY($1::uuid[]) AND kind = 'status'
    WINDOW steps AS (PARTITION BY order_id ORDER BY seq)
)
SELECT DISTINCT order_id::text FROM orders LEFT JOIN history USING (order_id) LEFT JOIN steps USING (order_id)
WHERE order_id = ANY($1::uuid[]) AND (
    (steps.seq IS NULL AND status <> 'awaiting_payment') OR coalesce(history.events, 0) <> status_seq
    OR history.seq <> number OR at < before_at OR from_status <> before OR final <> status
    OR NOT EXISTS (SELECT FROM order_transitions AS allowed
                   WHERE allowed.from_status = steps.from_status AND allowed.to_status = steps.to_status)
       AND steps.seq IS NOT NULL);

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
