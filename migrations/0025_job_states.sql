-- Whether a worker does a job now is shown, and failed jobs are found by an index.
ALTER TABLE jobs ADD COLUMN leased_until timestamptz;
DROP INDEX jobs_parked;
CREATE INDEX jobs_failed ON jobs (parked, queue, subject) WHERE parked OR last_error IS NOT NULL;
COMMENT ON COLUMN jobs.leased_until IS 'End of the last claim; the job is leased while due_at is the same';
COMMENT ON INDEX jobs_failed IS 'Finds parked jobs, and those that have failed and are tried again';
