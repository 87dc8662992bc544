-- Nothing reads when an account was opened, and a default was by another clock than all other times.
ALTER TABLE accounts DROP COLUMN created_at;
