-- A key of staff stands for one refund: another request under it is refused.
ALTER TABLE refund_grants ADD COLUMN request_digest bytea;
ALTER TABLE refund_grants
    ADD CONSTRAINT refund_grants_request_digest_check CHECK (length(request_digest) = 16) NOT VALID;
COMMENT ON COLUMN refund_grants.source_id IS 'The step of a cancellation, the case, or the order and key of staff; once for each kind';
COMMENT ON COLUMN refund_grants.request_digest IS 'Of a refund by staff: a repeat of its key has the same';
