-- name: list_paid_lines
SELECT line_no, address_no, quantity, quantity * unit_price_minor - discount_minor AS paid_minor
FROM order_lines WHERE order_id = $1 ORDER BY line_no, address_no;
