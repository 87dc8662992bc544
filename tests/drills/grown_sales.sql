-- Sums of sales by minute and by day, of two figures and of returns with their reasons.
INSERT INTO sales_by_minute (sale_id, sku, minute, figure, reason, events, units, amount_minor)
SELECT sale_id, coalesce(sku, ''), minute, figure, '', count(*), count(*), count(*) * 1000
FROM (SELECT sale_id, 'sku-' || n % 50 AS sku, date_trunc('minute', at) AS minute, status FROM fill.orders) AS orders
CROSS JOIN LATERAL (VALUES ('accepted'), (CASE status WHEN 'cancelled' THEN 'lapsed' ELSE 'paid' END)) AS counted (figure)
GROUP BY GROUPING SETS ((sale_id, minute, figure, sku), (sale_id, minute, figure));

INSERT INTO sales_by_day (sale_id, sku, day, figure, reason, events, units, amount_minor)
SELECT sale_id, sku, minute::date, figure, '', sum(events), sum(units), sum(amount_minor)
FROM sales_by_minute GROUP BY 1, 2, 3, 4;
INSERT INTO sales_by_day (sale_id, sku, day, figure, reason, events, units, amount_minor)
SELECT sale_id, sku, day, 'requested', 'changed_my_mind', 1, 1, 0 FROM sales_by_day WHERE figure = 'accepted';
