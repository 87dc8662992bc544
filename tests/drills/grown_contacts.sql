-- Recipients of orders as staff search for them, and who has opened which order.
INSERT INTO order_contacts (order_id, address_no, phone, name)
SELECT id, 0, '138' || lpad((n * 7919 % 100000000)::text, 8, '0'), 'name' || n * 7919 % 100000 FROM fill.orders ORDER BY n;
INSERT INTO order_views (order_id, actor, at) SELECT id, 'staff', at FROM fill.orders WHERE n % 10 = 2 ORDER BY n;
