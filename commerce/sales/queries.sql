-- name: insert_sale
INSERT INTO sales (sale_id, title, currency, state, opens_at, closes_at, pay_within_s, created_at)
VALUES ($1, $2, $3, 'draft', $4, $5, $6, $7)
ON CONFLICT (sale_id) DO NOTHING RETURNING sale_id;

-- name: get_sale
SELECT sale_id, title, currency, state, opens_at, closes_at, closed_at, pay_within_s, generation,
       published_generation, epoch, loaded_epoch, has_wait_list, freight_template
FROM sales WHERE sale_id = $1;

-- name: lock_sale
SELECT sale_id, title, currency, state, opens_at, closes_at, closed_at, pay_within_s, generation,
       published_generation, epoch, loaded_epoch, has_wait_list, freight_template
FROM sales WHERE sale_id = $1 FOR UPDATE;

-- name: list_sales
SELECT sale_id, title, currency, state, opens_at, closes_at, closed_at, pay_within_s, generation,
       published_generation, epoch, loaded_epoch, has_wait_list, freight_template
FROM sales WHERE sale_id > $1 AND ($3 OR state <> 'draft') ORDER BY sale_id LIMIT $2;

-- name: list_open_of_product
-- Sales that sell a variant of a product.
SELECT DISTINCT sale_id FROM variants JOIN sale_items USING (sku) JOIN sales USING (sale_id)
WHERE product_id = $1 AND state IN ('open', 'paused') ORDER BY sale_id LIMIT $2;

-- name: list_out_of_sync
-- Sales with an unfinished load, or with terms that are not published.
SELECT sale_id, title, currency, state, opens_at, closes_at, closed_at, pay_within_s, generation,
       published_generation, epoch, loaded_epoch, has_wait_list, freight_template
FROM sales WHERE loaded_epoch < epoch OR (epoch > 0 AND published_generation < generation);

-- name: set_state
-- The first opening raises the epoch, which makes a load due.
WITH epoch_lock AS MATERIALIZED (
    SELECT CASE WHEN epoch = 0 THEN pg_advisory_xact_lock(hashtextextended('floodgate epoch ' || $1, 0)) END
    FROM sales WHERE sale_id = $1
)
UPDATE sales SET state = $2, generation = generation + 1,
    epoch = CASE WHEN epoch = 0 THEN 1 ELSE epoch END
FROM epoch_lock WHERE sale_id = $1;

-- name: begin_load
-- See `stop_writers`. The lock is taken before the row is updated, because the update needs a row of epoch_lock.
WITH epoch_lock AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('floodgate epoch ' || $1, 0)))
UPDATE sales SET epoch = epoch + 1 FROM epoch_lock WHERE sale_id = $1 AND epoch > 0;

-- name: end_load
UPDATE sales SET loaded_epoch = $2, published_generation = $3 WHERE sale_id = $1 AND epoch = $2;

-- name: mark_published
UPDATE sales SET published_generation = greatest(published_generation, $3) WHERE sale_id = $1 AND epoch = $2;

-- name: increase_generation
UPDATE sales SET generation = generation + 1 WHERE sale_id = $1 RETURNING generation;

-- name: log
INSERT INTO sale_log (sale_id, at, actor, action, detail) VALUES ($1, $2, $3, $4, $5);

-- name: put_items
-- Terms of an item that exists are replaced. Without a price the list price of the product is used.
INSERT INTO sale_items (sale_id, sku, price_minor, user_limit, limit_bound, initial_units, changed_generation)
SELECT $1, variants.sku, coalesce(input.price_minor, variants.price_minor), input.user_limit, input.user_limit,
       input.units, $6
FROM unnest($2::text[], $3::bigint[], $4::integer[], $5::bigint[]) AS input (sku, price_minor, user_limit, units)
JOIN variants USING (sku)
ON CONFLICT (sale_id, sku) DO UPDATE
SET price_minor = excluded.price_minor, user_limit = excluded.user_limit, limit_bound = excluded.limit_bound,
    initial_units = excluded.initial_units, changed_generation = excluded.changed_generation;

-- name: read_list_prices
SELECT sku, currency, price_minor, status FROM variants JOIN products USING (product_id) WHERE sku = ANY($1::text[]);

-- name: change_item
-- limit_bound is the highest limit that was ever in force; NULL as soon as there was no limit. That of a draft is not.
UPDATE sale_items SET price_minor = $3, user_limit = $4, changed_generation = $5,
    initial_units = coalesce($6::bigint, initial_units),
    limit_bound = CASE WHEN (SELECT state FROM sales WHERE sale_id = $1) = 'draft' THEN $4::integer
                       WHEN user_limit IS NULL OR limit_bound IS NULL THEN NULL
                       WHEN $4::integer IS NULL THEN NULL ELSE greatest(limit_bound, $4::integer) END
WHERE sale_id = $1 AND sku = $2;

-- name: get_item
SELECT sale_items.sku, name, sale_items.price_minor AS price, user_limit AS limit_per_user, initial_units
FROM sale_items JOIN variants USING (sku) WHERE sale_id = $1 AND sale_items.sku = $2;

-- name: has_item
-- A product's or a coupon's.
SELECT EXISTS (SELECT FROM sale_items WHERE sale_id = $1 AND sku = $2);

-- name: list_items
SELECT sale_items.sku, name, sale_items.price_minor AS price, user_limit AS limit_per_user, initial_units
FROM sale_items JOIN variants USING (sku)
WHERE sale_id = $1 AND sale_items.sku > $2 ORDER BY sale_items.sku LIMIT $3;

-- name: read_item_prices
SELECT sku, price_minor FROM sale_items WHERE sale_id = $1 AND product_sku IS NOT NULL AND sku = ANY($2::text[]);

-- name: read_lowest_price
SELECT sku, price_minor FROM sale_items WHERE sale_id = $1 AND product_sku IS NOT NULL
ORDER BY price_minor, sku LIMIT 1;

-- name: list_changed_items
-- Terms that a gateway does not have yet, in parts that do not block it for long.
SELECT sku, sale_items.price_minor, coalesce(user_limit, 0) AS user_limit, variants.price_minor AS list_price_minor,
       coalesce(weight_g, 0) AS weight_g
FROM sale_items JOIN variants USING (sku)
WHERE sale_id = $1 AND changed_generation > $2 AND sku > $3 ORDER BY sku LIMIT $4;

-- name: list_coupons_of_promotion
SELECT code FROM coupons WHERE sale_id = $1 AND promotion_id = $2 ORDER BY code LIMIT 10;

-- name: insert_first_order_item
INSERT INTO sale_items (sale_id, sku, price_minor, user_limit, limit_bound, initial_units, changed_generation)
VALUES ($1, $2, 0, 1, 1, $3, $4) ON CONFLICT (sale_id, sku) DO NOTHING RETURNING sku;

-- name: delete_first_order_item
DELETE FROM sale_items WHERE sale_id = $1 AND sku = $2;

-- name: list_changed_coupons
SELECT code, promotion_id, coalesce(user_limit, 0) AS user_limit, issued
FROM coupons JOIN sale_items USING (sale_id, sku) WHERE sale_id = $1 AND changed_generation > $2;

-- name: insert_change
-- With its job, which is claimed until $8.
WITH inserted AS (
    INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (change_id) DO NOTHING RETURNING change_id
)
INSERT INTO jobs (subject, queue, kind, system, due_at, leased_until, attempts, created_at)
SELECT change_id, 'stock_changes', 'stock_change.apply', 'internal', $8, $8, 1, $7 FROM inserted RETURNING subject;

-- name: get_changes
SELECT change_id, sale_id, sku, delta, reason, actor, CASE WHEN parked THEN 'parked' ELSE status END AS status,
       coalesce(refused_reason, last_error) AS last_error, stock_changes.created_at
FROM stock_changes LEFT JOIN jobs ON subject = change_id AND queue = 'stock_changes' WHERE change_id = ANY($1::uuid[]);

-- name: list_changes
SELECT change_id, sale_id, sku, delta, reason, actor, CASE WHEN parked THEN 'parked' ELSE status END AS status,
       coalesce(refused_reason, last_error) AS last_error, created_at
FROM (SELECT change_id, sale_id, sku, delta, reason, actor, status, refused_reason, created_at
      FROM stock_changes WHERE sale_id = $1 ORDER BY created_at DESC LIMIT $2) AS changes
LEFT JOIN (SELECT subject, parked, last_error FROM jobs WHERE queue = 'stock_changes') AS due ON subject = change_id
ORDER BY created_at DESC;

-- name: mark_change_applied
-- Only while the load that it was applied to is current: a newer load treats pending rows as not applied.
WITH ended AS (
    UPDATE stock_changes SET status = 'applied', ended_at = $2, epoch = $3, seq = $4
    WHERE change_id = $1 AND status = 'pending'
      AND EXISTS (SELECT FROM sales WHERE sales.sale_id = stock_changes.sale_id AND sales.epoch = $3 FOR SHARE)
    RETURNING change_id
), finished AS (
    DELETE FROM jobs USING ended WHERE queue = 'stock_changes' AND subject = change_id
)
SELECT count(*) FROM ended;

-- name: refuse_change
-- Only while the load that refused it is current: a newer load may have applied it.
WITH ended AS (
    UPDATE stock_changes SET status = 'refused', ended_at = $2, refused_reason = $4
    WHERE change_id = $1 AND status = 'pending'
      AND EXISTS (SELECT FROM sales WHERE sales.sale_id = stock_changes.sale_id AND sales.epoch = $3 FOR SHARE)
    RETURNING change_id
), finished AS (
    DELETE FROM jobs USING ended WHERE queue = 'stock_changes' AND subject = change_id
)
SELECT count(*) FROM ended;

-- name: lock_load
SELECT pg_try_advisory_lock(hashtextextended('floodgate load ' || $1, 0));

-- name: unlock_load
SELECT pg_advisory_unlock(hashtextextended('floodgate load ' || $1, 0));

-- name: allow_long_statements
SET LOCAL statement_timeout = '600s';

-- name: compute_free_units
-- Free units according to the rows; what was written off is gone. Orders that are only in the stream are not subtracted
-- yet.
WITH movements AS (
    SELECT sku, delta AS units FROM stock_changes WHERE sale_id = $1 AND status = 'applied'
    UNION ALL
    SELECT sku, -quantity FROM order_units JOIN orders USING (order_id) WHERE sale_id = $1
    UNION ALL
    SELECT key, -value::bigint FROM dead_letters, jsonb_each_text(units) WHERE sale_id = $1 AND status <> 'retried'
    UNION ALL
    SELECT key, value::bigint - coalesce((written_off ->> key)::bigint, 0) FROM releases, jsonb_each_text(units)
    WHERE sale_id = $1 AND status = 'applied'
)
SELECT sku, initial_units + coalesce(units, 0)::bigint AS free, coalesce(user_limit, 0) AS user_limit
FROM sale_items LEFT JOIN (SELECT sku, sum(units) AS units FROM movements GROUP BY sku) AS sums USING (sku)
WHERE sale_id = $1;

-- name: compute_bought_units
-- Reserved units by user, for SKUs with a limit.
WITH movements AS (
    SELECT user_id, sku, quantity AS units FROM order_units JOIN orders USING (order_id) WHERE sale_id = $1
    UNION ALL
    SELECT user_id, key, value::bigint FROM dead_letters, jsonb_each_text(units)
    WHERE sale_id = $1 AND status <> 'retried'
    UNION ALL
    SELECT user_id, key, -value::bigint FROM releases, jsonb_each_text(units) WHERE sale_id = $1 AND status = 'applied'
)
SELECT user_id, sku, sum(units)::bigint AS units FROM movements JOIN sale_items USING (sku)
WHERE sale_id = $1 AND user_limit IS NOT NULL AND user_id IS NOT NULL
GROUP BY user_id, sku HAVING sum(units) > 0;

-- name: list_expired_releases
-- Redis no longer knows if it applied these releases and refuses to apply them, so the new load counts them.
SELECT release_id, user_id, units, coalesce(written_off, '{}') AS written_off FROM releases
WHERE sale_id = $1 AND reacquires IS NULL AND status = 'pending'
  AND (created_at < $2 OR EXISTS (SELECT FROM jobs WHERE subject = release_id AND queue = 'releases' AND parked));

-- name: list_expired_changes
SELECT change_id, sku, delta FROM stock_changes
WHERE sale_id = $1 AND status = 'pending'
  AND (created_at < $2 OR EXISTS (SELECT FROM jobs WHERE subject = change_id AND queue = 'stock_changes' AND parked))
ORDER BY created_at;

-- name: refuse_expired_reacquires
-- Nobody knows if these were applied to the previous load. The new load counts only those that are marked applied, so
-- they take no stock and the money is refunded.
UPDATE releases SET status = 'refused', ended_at = $3, refused_reason = 'it took too long'
WHERE sale_id = $1 AND reacquires IS NOT NULL AND status = 'pending' AND created_at < $2;

-- name: mark_expired_releases_applied
-- Seq 0 precedes every change after the load.
WITH ended AS (DELETE FROM jobs WHERE subject = ANY($1::uuid[]) AND queue = 'releases')
UPDATE releases SET status = 'applied', ended_at = $3, epoch = $2, seq = 0
WHERE release_id = ANY($1::uuid[]) AND status = 'pending';

-- name: mark_expired_changes_applied
WITH ended AS (DELETE FROM jobs WHERE subject = ANY($1::uuid[]) AND queue = 'stock_changes')
UPDATE stock_changes SET status = 'applied', ended_at = $3, epoch = $2, seq = 0
WHERE change_id = ANY($1::uuid[]) AND status = 'pending';

-- name: refuse_expired_changes
WITH ended AS (DELETE FROM jobs WHERE subject = ANY($1::uuid[]) AND queue = 'stock_changes')
UPDATE stock_changes SET status = 'refused', ended_at = $2, refused_reason = $3
WHERE change_id = ANY($1::uuid[]) AND status = 'pending';

-- name: list_open_offers
-- Offers of the wait-list, with the units that stored orders since the offer have taken of them.
SELECT offer_id, user_id, sku, after_entry_at AS accepted_at, after_entry_seq AS entry_seq,
       offered_units
       - coalesce((SELECT sum(order_units.quantity) FROM orders JOIN order_units USING (order_id)
                   WHERE orders.user_id = entries.user_id AND orders.sale_id = entries.sale_id
                     AND order_units.sku = entries.sku
                     AND (accepted_at, entry_seq) > (after_entry_at, after_entry_seq)), 0)::bigint
       - coalesce((SELECT sum((units ->> entries.sku)::bigint) FROM dead_letters
                   WHERE dead_letters.user_id = entries.user_id AND dead_letters.sale_id = entries.sale_id
                     AND status <> 'retried' AND (entry_at, dead_letters.entry_seq) > (after_entry_at, after_entry_seq)
                  ), 0)::bigint AS units
FROM wait_list_entries AS entries WHERE sale_id = $1 AND state = 'offered' ORDER BY sku, number;

-- name: list_awaited_skus
SELECT sku FROM wait_list_skus WHERE sale_id = $1 AND waiting > 0;

-- name: mark_offers_restored
-- Each has its full time again: nobody knows how long its holder could not order. Seq 0 precedes every change after the
-- load.
UPDATE wait_list_entries SET epoch = $2, seq = 0, offered_at = $3, accept_by = $3::timestamptz + accept_s * interval '1 second'
FROM wait_lists
WHERE offer_id = ANY($1::uuid[]) AND state = 'offered' AND wait_lists.sale_id = wait_list_entries.sale_id;

-- name: set_wait_list
UPDATE sales SET has_wait_list = $2, generation = generation + 1 WHERE sale_id = $1 AND has_wait_list <> $2;

-- name: set_freight_template
UPDATE sales SET freight_template = $2, generation = generation + 1 WHERE sale_id = $1;

-- name: list_freight_mismatches
SELECT sale_id FROM sales WHERE freight_template = $1 AND currency <> $2 AND state <> 'closed' ORDER BY sale_id LIMIT $3;

-- name: raise_generations
-- Of the sales of a freight template, locked in one order.
WITH locked AS MATERIALIZED (
    SELECT sale_id FROM sales WHERE freight_template = $1 AND state <> 'closed' ORDER BY sale_id FOR UPDATE
), raised AS (
    UPDATE sales SET generation = generation + 1 FROM locked WHERE sales.sale_id = locked.sale_id
    RETURNING sales.sale_id
), logged AS (
    INSERT INTO sale_log (sale_id, at, actor, action, detail) SELECT sale_id, $2, $3, 'freight', $4 FROM raised
)
SELECT sale_id FROM raised ORDER BY sale_id;

-- name: find_persisted
-- Those of the orders that are stored, or dead-lettered with their units. A dead letter without units does not stand for
-- an order: a gateway may have sent it again, and then its units are taken and it is in the stream under the same id.
SELECT order_id FROM orders WHERE order_id = ANY($1::uuid[])
UNION ALL
SELECT order_id FROM dead_letters WHERE order_id = ANY($1::uuid[]) AND NOT stock_lost;

-- name: read_recent_keys
SELECT order_id, user_id, idempotency_key, body_digest, total_minor, accepted_at, entry_seq
FROM orders WHERE sale_id = $1 AND accepted_at >= $2 AND idempotency_key IS NOT NULL;

-- name: read_last_entry
-- The newest stream entry since a moment whose orders are stored, or dead-lettered with their units.
SELECT accepted_at, entry_seq FROM (
    (SELECT accepted_at, entry_seq FROM orders WHERE sale_id = $1 AND accepted_at >= $2
     ORDER BY accepted_at DESC, entry_seq DESC LIMIT 1)
    UNION ALL
    (SELECT entry_at, entry_seq FROM dead_letters WHERE sale_id = $1 AND entry_at >= $2 AND NOT stock_lost
     ORDER BY entry_at DESC, entry_seq DESC LIMIT 1)
) AS newest ORDER BY accepted_at DESC, entry_seq DESC LIMIT 1;

-- name: raise_observed_entry
UPDATE sales SET observed_entry_at = $2, observed_entry_seq = $3
WHERE sale_id = $1 AND (observed_entry_at IS NULL OR (observed_entry_at, observed_entry_seq) < ($2, $3));

-- name: list_closed
SELECT sale_id FROM sales WHERE sale_id = ANY($1::text[]) AND state = 'closed';

-- name: read_observed_entry
SELECT observed_entry_at AS accepted_at, observed_entry_seq AS entry_seq
FROM sales WHERE sale_id = $1 AND observed_entry_at IS NOT NULL;

-- name: read_last_change_seq
-- The highest seq that is marked as applied since the stock was counted, 0 if there is none.
SELECT coalesce(max(seq), 0) FROM (
    SELECT seq FROM releases WHERE sale_id = $1 AND status = 'applied' AND epoch >= $2
    UNION ALL
    SELECT seq FROM stock_changes WHERE sale_id = $1 AND status = 'applied' AND epoch >= $2
    UNION ALL
    SELECT retry_seq FROM dead_letters WHERE sale_id = $1 AND retry_epoch >= $2
    UNION ALL
    SELECT seq FROM wait_list_entries WHERE sale_id = $1 AND epoch >= $2 AND seq IS NOT NULL
) AS changes;

-- name: begin_adoption
-- From here on no writer commits what it read from the previous server, and no change is marked as applied there.
-- Only after `stop_writers` in the same transaction.
UPDATE sales SET epoch = epoch + 1 WHERE sale_id = $1 RETURNING epoch;

-- name: stop_writers
-- Whoever raises the epoch takes this lock alone; writers share it. A lock of the row would not do: it lets those that
-- share it pass one that waits to change the row, so writers that follow each other would keep it waiting for ever.
-- A writer never waits for the row of a sale, so the row may be locked first.
SELECT pg_advisory_xact_lock(hashtextextended('floodgate epoch ' || $1, 0));

-- name: share_epoch
SELECT pg_advisory_xact_lock_shared(hashtextextended('floodgate epoch ' || $1, 0));

-- name: read_epoch
-- Not in one statement with `share_epoch`: a statement that waits for the lock sees the row as it was before.
SELECT epoch FROM sales WHERE sale_id = $1;
