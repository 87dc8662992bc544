-- What is undone of a paid order: cancellations, refunds by line and unit, releases in parts, and the story of all that.

-- Each event of an order bumps its status_seq, so that whoever has read the order before reads it again. Only those of
-- the kind `status` change the status.
ALTER TABLE order_events
    ADD COLUMN kind text NOT NULL DEFAULT 'status',
    ADD COLUMN details jsonb,
    ALTER COLUMN from_status DROP NOT NULL,
    ALTER COLUMN to_status DROP NOT NULL;
ALTER TABLE order_events
    ADD CONSTRAINT order_events_kind_check
        CHECK (kind IN ('status', 'payment', 'refund', 'cancellation', 'shipment', 'case', 'exchange')) NOT VALID,
    ADD CONSTRAINT order_events_step_check
        CHECK ((kind = 'status') = (from_status IS NOT NULL) AND (kind = 'status') = (to_status IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT order_events_details_check CHECK (jsonb_typeof(details) = 'object') NOT VALID;
COMMENT ON TABLE order_events IS 'Each status change of an order and whatever else its customer reads: time, actor, reason';
COMMENT ON COLUMN order_events.kind IS 'What happened; only `status` changes the status of the order';
COMMENT ON COLUMN order_events.details IS 'Ids, and amounts in minor units';

INSERT INTO order_transitions VALUES
    ('paid', 'cancelled'), ('confirmed', 'cancelled'), ('fulfilling', 'cancelled'), ('shipped', 'cancelled');
ALTER TABLE orders DROP CONSTRAINT orders_cancel_reason_check;
ALTER TABLE orders ADD CONSTRAINT orders_cancel_reason_check
    CHECK (cancel_reason IN ('expired', 'by_customer', 'by_staff', 'refused', 'delivery_refused', 'undeliverable', 'lost',
                             'refunded')) NOT VALID;

ALTER TABLE fulfilment_lines
    ADD COLUMN cancelled integer NOT NULL DEFAULT 0,
    ADD COLUMN cancelling integer NOT NULL DEFAULT 0;
ALTER TABLE fulfilment_lines
    ADD CONSTRAINT fulfilment_lines_cancelled_check
        CHECK (0 <= cancelled AND 0 <= cancelling AND planned <= ordered - cancelled
               AND cancelling <= ordered - cancelled - delivered) NOT VALID;
COMMENT ON TABLE fulfilment_lines IS 'Units of an order line for one address: planned, shipped, delivered, returned, cancelled';
COMMENT ON COLUMN fulfilment_lines.cancelled IS 'Units that will never be delivered';
COMMENT ON COLUMN fulfilment_lines.cancelling IS 'Units that are cancelled once their shipment is stopped';

CREATE TABLE cancellations (
    cancellation_id uuid PRIMARY KEY,
    order_id        uuid NOT NULL REFERENCES orders,
    cause           text NOT NULL CHECK (cause IN ('by_customer', 'by_staff', 'delivery_refused', 'undeliverable', 'lost',
                                                   'refunded')),
    reason          text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    actor           text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    status          text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done')),
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    CHECK ((status = 'done') = (ended_at IS NOT NULL)),
    UNIQUE (order_id, actor, idempotency_key)
);
CREATE INDEX cancellations_open ON cancellations (created_at) WHERE status = 'open';
COMMENT ON TABLE cancellations IS 'Units of paid or confirmed orders that are not to be delivered; open while a shipment is being stopped';

CREATE TABLE cancellation_lines (
    cancellation_id uuid NOT NULL REFERENCES cancellations,
    order_id        uuid NOT NULL,
    line_no         smallint NOT NULL,
    address_no      smallint NOT NULL,
    quantity        integer NOT NULL CHECK (quantity > 0),
    cancelled       integer NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    kept            integer NOT NULL DEFAULT 0 CHECK (kept >= 0),
    PRIMARY KEY (cancellation_id, line_no, address_no),
    FOREIGN KEY (order_id, line_no, address_no) REFERENCES order_lines,
    CHECK (cancelled + kept <= quantity)
);
CREATE INDEX cancellation_lines_of_order ON cancellation_lines (order_id);
COMMENT ON TABLE cancellation_lines IS 'Units of a cancellation by order line and address';
COMMENT ON COLUMN cancellation_lines.cancelled IS 'Units that are out of the order';
COMMENT ON COLUMN cancellation_lines.kept IS 'Units that could not be stopped: they are delivered and may be returned';

CREATE TABLE refund_grants (
    grant_id      uuid PRIMARY KEY,
    order_id      uuid NOT NULL REFERENCES orders,
    kind          text NOT NULL CHECK (kind IN ('cancellation', 'case', 'staff')),
    source_id     uuid,
    amount_minor  bigint NOT NULL CHECK (amount_minor >= 0),
    freight_minor bigint NOT NULL DEFAULT 0 CHECK (freight_minor >= 0),
    fee_minor     bigint NOT NULL DEFAULT 0 CHECK (fee_minor >= 0),
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    strategy      text NOT NULL CHECK (strategy IN ('ratio', 'first', 'last')),
    reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    actor         text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    created_at    timestamptz NOT NULL,
    UNIQUE (kind, source_id)
);
CREATE INDEX refund_grants_of_order ON refund_grants (order_id);
COMMENT ON TABLE refund_grants IS 'Decisions that customers get money of an order back; refunds move it, one for each payment';
COMMENT ON COLUMN refund_grants.source_id IS 'The step of a cancellation, or the case; null if staff have granted it';
COMMENT ON COLUMN refund_grants.amount_minor IS 'Sum of the lines + freight - fee';
COMMENT ON COLUMN refund_grants.fee_minor IS 'What the shop withholds';

CREATE TABLE refund_grant_lines (
    grant_id     uuid NOT NULL REFERENCES refund_grants,
    order_id     uuid NOT NULL,
    line_no      smallint NOT NULL,
    address_no   smallint NOT NULL,
    first_unit   integer NOT NULL CHECK (first_unit >= 0),
    quantity     integer NOT NULL CHECK (quantity > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    PRIMARY KEY (grant_id, line_no, address_no),
    UNIQUE (order_id, line_no, address_no, first_unit),
    FOREIGN KEY (order_id, line_no, address_no) REFERENCES order_lines
);
COMMENT ON TABLE refund_grant_lines IS 'Units of order lines whose price comes back, each unit once';
COMMENT ON COLUMN refund_grant_lines.first_unit IS 'Number of units of the line that were granted before, so the parts add up to the whole';
COMMENT ON COLUMN refund_grant_lines.amount_minor IS 'What was paid for these units';

ALTER TABLE releases
    ADD COLUMN part_of uuid REFERENCES orders,
    ADD COLUMN written_off jsonb;
ALTER TABLE releases
    ADD CONSTRAINT releases_part_of_check CHECK (part_of IS NULL OR (part_of <> release_id AND reacquires IS NULL)) NOT VALID,
    ADD CONSTRAINT releases_written_off_check CHECK (jsonb_typeof(written_off) = 'object') NOT VALID;
CREATE INDEX releases_part_of ON releases (part_of) WHERE part_of IS NOT NULL;
COMMENT ON COLUMN releases.part_of IS 'Set if only these units of that order are released; otherwise release_id is the order';
COMMENT ON COLUMN releases.written_off IS 'Of the units, those that do not return to stock: lost or damaged';
