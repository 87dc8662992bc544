-- Opening and closing times are moments of the years 2000 to 2999: year 1 was stored as -infinity, which no process
-- could read, and which stopped the work on all sales.

-- Times beyond the bounds are moved to the bound: a sale that was open for ever still is, and a repair is logged.
-- The bounds of the two differ by a second, so that a sale still closes after it opens.
CREATE TEMPORARY TABLE repaired_sales ON COMMIT DROP AS
SELECT sale_id, opens_at, closes_at,
       least(greatest(opens_at, '2000-01-01T00:00:00Z'), '2999-12-31T23:59:58Z') AS new_opens_at,
       CASE WHEN closes_at IS NOT NULL
            THEN least(greatest(closes_at, '2000-01-01T00:00:01Z'), '2999-12-31T23:59:59Z') END AS new_closes_at
FROM sales
WHERE opens_at NOT BETWEEN '2000-01-01T00:00:00Z' AND '2999-12-31T23:59:59.999999Z'
   OR closes_at NOT BETWEEN '2000-01-01T00:00:00Z' AND '2999-12-31T23:59:59.999999Z';

INSERT INTO sale_log (sale_id, at, actor, action, detail)
SELECT sale_id, now(), 'migration 0010', 'times', jsonb_build_object(
    'opens_at', jsonb_build_array(opens_at::text, new_opens_at::text),
    'closes_at', jsonb_build_array(closes_at::text, new_closes_at::text))
FROM repaired_sales;

-- The generation makes the repaired times be published to Redis.
UPDATE sales SET opens_at = new_opens_at, closes_at = new_closes_at,
    generation = generation + CASE WHEN state IN ('open', 'paused') THEN 1 ELSE 0 END
FROM repaired_sales WHERE sales.sale_id = repaired_sales.sale_id;

ALTER TABLE sales
    ADD CONSTRAINT sales_opens_at_years
        CHECK (opens_at BETWEEN '2000-01-01T00:00:00Z' AND '2999-12-31T23:59:59.999999Z'),
    ADD CONSTRAINT sales_closes_at_years
        CHECK (closes_at BETWEEN '2000-01-01T00:00:00Z' AND '2999-12-31T23:59:59.999999Z');
COMMENT ON CONSTRAINT sales_opens_at_years ON sales IS 'Finite, and within what every program can compute with';
COMMENT ON CONSTRAINT sales_closes_at_years ON sales IS 'Finite, and within what every program can compute with';
