-- A key of staff stands for a grant, which has a digest of its request: refunds need not tell what they were asked for.

ALTER TABLE refunds DROP COLUMN request_minor;
