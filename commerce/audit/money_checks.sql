-- name: grants_and_money
-- P6. Of an order with refund grants its total is kept, less these, whichever payments moved the money: its captures less
-- their refunds. Not while cash is due, or a job is about to refund what was collected beyond it. Refunds of earlier
-- versions belong to no grant.
SELECT orders.order_id::text FROM orders WHERE orders.order_id = ANY($1::uuid[])
  AND EXISTS (SELECT FROM refund_grants WHERE refund_grants.order_id = orders.order_id)
  AND total_minor - (SELECT sum(amount_minor) FROM refund_grants WHERE refund_grants.order_id = orders.order_id)
      <> (SELECT coalesce(sum(payments.captured_minor), 0) FROM payments WHERE payments.order_id = orders.order_id)
         - (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
            WHERE refunds.order_id = orders.order_id AND refund_key = 'whole' AND refunds.status <> 'failed')
         - (SELECT coalesce(sum(amount_minor), 0) FROM refunds_of_grants(orders.order_id))
  AND NOT EXISTS (SELECT FROM payments WHERE payments.order_id = orders.order_id AND (
      payments.status IN ('pending', 'authorised')
      OR EXISTS (SELECT FROM jobs WHERE jobs.subject = payment_id AND queue = 'payments')
      OR (method = 'cod' AND EXISTS (SELECT FROM jobs WHERE jobs.subject = orders.order_id AND queue = 'cancellations'))));
