-- A coupon is for a promotion of its sale.
ALTER TABLE coupons ADD FOREIGN KEY (sale_id, promotion_id) REFERENCES promotions;
