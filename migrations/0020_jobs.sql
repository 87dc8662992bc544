-- One table of jobs for all deferred work; business rows keep their business state.
CREATE TABLE jobs (
    subject    uuid NOT NULL,
    queue      text NOT NULL,
    kind       text NOT NULL,
    system     text NOT NULL,
    due_at     timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    parked     boolean NOT NULL DEFAULT false,
    last_error text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (subject, queue)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX jobs_due ON jobs (queue, system, kind, due_at) WHERE NOT parked;
CREATE INDEX jobs_parked ON jobs (queue, subject) WHERE parked;
COMMENT ON TABLE jobs IS 'Work to be done later, at most one job per subject and queue; a finished one is deleted';
COMMENT ON COLUMN jobs.subject IS 'Id of the business row: of a release, stock change, payment, refund, shipment or order';
COMMENT ON COLUMN jobs.kind IS 'What is to be done; each kind has one handler';
COMMENT ON COLUMN jobs.system IS 'External system that it calls, or internal';
COMMENT ON COLUMN jobs.due_at IS 'A claim moves it to the end of its lease';
COMMENT ON COLUMN jobs.attempts IS 'Claims since it was put, or since the last one without an error';
COMMENT ON COLUMN jobs.parked IS 'Given up: a person decides';
COMMENT ON INDEX jobs_due IS 'Finds the oldest due jobs of each kind and system';

INSERT INTO jobs (subject, queue, kind, system, due_at, attempts, parked, last_error, created_at)
SELECT release_id, 'releases', 'release.apply', 'internal', due_at, attempts, status = 'parked', last_error, created_at
FROM releases WHERE status IN ('pending', 'parked') AND reacquires IS NULL
UNION ALL
SELECT change_id, 'stock_changes', 'stock_change.apply', 'internal', due_at, attempts, status = 'parked', last_error,
       created_at
FROM stock_changes WHERE status IN ('pending', 'parked');

UPDATE releases SET status = 'pending' WHERE status = 'parked';
UPDATE stock_changes SET status = 'pending' WHERE status = 'parked';
UPDATE releases SET last_error = NULL WHERE last_error IS NOT NULL AND status <> 'refused';
UPDATE stock_changes SET last_error = NULL WHERE last_error IS NOT NULL AND status <> 'refused';
DROP INDEX releases_parked, releases_due, stock_changes_parked, stock_changes_due;
ALTER TABLE releases DROP COLUMN due_at, DROP COLUMN attempts;
ALTER TABLE releases RENAME COLUMN last_error TO refused_reason;
ALTER TABLE releases DROP CONSTRAINT releases_status_check;
ALTER TABLE releases ADD CONSTRAINT releases_status_check CHECK (
    status IN ('pending', 'applied') OR (status = 'refused' AND reacquires IS NOT NULL));
ALTER TABLE stock_changes DROP COLUMN due_at, DROP COLUMN attempts;
ALTER TABLE stock_changes RENAME COLUMN last_error TO refused_reason;
ALTER TABLE stock_changes DROP CONSTRAINT stock_changes_status_check;
ALTER TABLE stock_changes ADD CONSTRAINT stock_changes_status_check CHECK (status IN ('pending', 'applied', 'refused'));
COMMENT ON TABLE stock_changes IS 'Units that staff add to or take from a sale; a job applies it to Redis';
COMMENT ON TABLE releases IS 'Stock and limits to return to Redis, once per id; a job applies it';
COMMENT ON COLUMN releases.refused_reason IS 'Why Redis did not reacquire the stock';
COMMENT ON COLUMN stock_changes.refused_reason IS 'Why the change was not made';
