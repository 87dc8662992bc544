-- A draft can be deleted; its log stays, and says who deleted it.
ALTER TABLE sale_log DROP CONSTRAINT sale_log_sale_id_fkey;
COMMENT ON TABLE sale_log IS 'Changes of sales: time, actor, action; also of drafts that were deleted';
