-- Shipments on their way back, what is received at a warehouse, and what an inspection finds.

CREATE TABLE return_shipments (
    return_shipment_id uuid PRIMARY KEY,
    case_id          uuid NOT NULL REFERENCES cases,
    order_id         uuid NOT NULL REFERENCES orders,
    user_id          text NOT NULL,
    booked_by        text NOT NULL CHECK (booked_by IN ('shop', 'customer')),
    from_address     jsonb NOT NULL CHECK (jsonb_typeof(from_address) = 'object'),
    warehouse_id     text NOT NULL REFERENCES warehouses,
    status           text NOT NULL DEFAULT 'requested' CHECK (status IN (
        'requested', 'booked', 'picked_up', 'in_transit', 'delivered', 'lost', 'cancelled')),
    event_seq        integer NOT NULL DEFAULT 0,
    weight_g         integer NOT NULL CHECK (weight_g > 0),
    length_mm        integer NOT NULL CHECK (length_mm > 0),
    width_mm         integer NOT NULL CHECK (width_mm > 0),
    height_mm        integer NOT NULL CHECK (height_mm > 0),
    value_minor      bigint NOT NULL CHECK (value_minor >= 0),
    currency         text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    payer            text NOT NULL CHECK (payer IN ('shop', 'customer')),
    price_minor      bigint CHECK (price_minor >= 0),
    carrier          text CHECK (carrier ~ '^[a-z][a-z0-9_]{0,31}$'),
    refused_by       text[] NOT NULL DEFAULT '{}',
    booking_id       uuid UNIQUE,
    requested_at     timestamptz,
    tracking_no      text CHECK (length(tracking_no) BETWEEN 1 AND 64),
    sort_code        text CHECK (length(sort_code) BETWEEN 1 AND 64),
    expected_on      date,
    is_cancelling    boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL,
    created_by       text NOT NULL CHECK (length(created_by) BETWEEN 1 AND 100),
    booked_at        timestamptz,
    polled_at        timestamptz,
    last_event_at    timestamptz,
    ended_at         timestamptz,
    received_at      timestamptz,
    CHECK ((booking_id IS NULL) = (requested_at IS NULL)),
    CHECK (status IN ('requested', 'cancelled') OR (tracking_no IS NOT NULL AND booked_at IS NOT NULL)),
    CHECK ((status IN ('delivered', 'lost', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK (NOT is_cancelling OR (booking_id IS NOT NULL AND ended_at IS NULL))
);
CREATE INDEX return_shipments_of_case ON return_shipments (case_id);
CREATE INDEX return_shipments_of_order ON return_shipments (order_id);
CREATE UNIQUE INDEX return_shipments_by_number ON return_shipments (carrier, tracking_no) WHERE status <> 'cancelled';
CREATE INDEX return_shipments_numbers ON return_shipments (tracking_no) WHERE tracking_no IS NOT NULL;
CREATE INDEX return_shipments_open ON return_shipments (return_shipment_id) WHERE ended_at IS NULL;
CREATE INDEX return_shipments_not_received ON return_shipments (return_shipment_id)
    WHERE status IN ('delivered', 'lost') AND received_at IS NULL;

CREATE TABLE return_shipment_lines (
    return_shipment_id uuid NOT NULL REFERENCES return_shipments,
    case_id          uuid NOT NULL,
    case_line_no     smallint NOT NULL,
    sku              text NOT NULL,
    quantity         integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (return_shipment_id, case_line_no),
    FOREIGN KEY (case_id, case_line_no) REFERENCES case_lines
);

CREATE TABLE return_shipment_events (
    return_shipment_id    uuid NOT NULL REFERENCES return_shipments,
    seq                 integer NOT NULL CHECK (seq > 0),
    at                  timestamptz NOT NULL,
    received_at         timestamptz NOT NULL,
    source              text NOT NULL CHECK (source IN ('system', 'staff', 'customer', 'webhook', 'query')),
    actor               text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    from_status         text,
    to_status           text,
    code                text CHECK (length(code) BETWEEN 1 AND 64),
    is_unknown_code     boolean NOT NULL DEFAULT false,
    contradicts_history boolean NOT NULL DEFAULT false,
    place               text CHECK (length(place) BETWEEN 1 AND 200),
    text                text NOT NULL CHECK (length(text) BETWEEN 1 AND 500),
    event_key           bytea,
    PRIMARY KEY (return_shipment_id, seq),
    UNIQUE (return_shipment_id, event_key),
    CHECK ((from_status IS NULL) = (to_status IS NULL))
);

CREATE TABLE return_receipts (
    receipt_id       uuid PRIMARY KEY,
    case_id          uuid REFERENCES cases,
    return_shipment_id uuid REFERENCES return_shipments,
    warehouse_id     text NOT NULL REFERENCES warehouses,
    tracking_no      text CHECK (length(tracking_no) BETWEEN 1 AND 64),
    note             text NOT NULL CHECK (length(note) <= 200),
    received_at      timestamptz NOT NULL,
    actor            text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    matched_at       timestamptz,
    matched_by       text CHECK (length(matched_by) BETWEEN 1 AND 100),
    resolution       text CHECK (length(resolution) BETWEEN 1 AND 200),
    CHECK (case_id IS NOT NULL OR return_shipment_id IS NULL),
    CHECK ((matched_at IS NULL) = (matched_by IS NULL)),
    CHECK (resolution IS NULL OR (case_id IS NULL AND matched_at IS NOT NULL))
);
CREATE INDEX return_receipts_of_case ON return_receipts (case_id) WHERE case_id IS NOT NULL;
CREATE INDEX return_receipts_unmatched ON return_receipts (receipt_id) WHERE case_id IS NULL AND matched_at IS NULL;

CREATE TABLE return_receipt_lines (
    receipt_id   uuid NOT NULL REFERENCES return_receipts,
    case_id      uuid NOT NULL,
    case_line_no smallint NOT NULL,
    quantity     integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (receipt_id, case_line_no),
    FOREIGN KEY (case_id, case_line_no) REFERENCES case_lines
);

CREATE TABLE return_surplus (
    surplus_id   uuid PRIMARY KEY,
    receipt_id   uuid NOT NULL REFERENCES return_receipts,
    sku          text REFERENCES products,
    description  text NOT NULL CHECK (length(description) <= 200),
    quantity     integer NOT NULL CHECK (quantity > 0),
    decision     text CHECK (decision IN ('send_back', 'keep', 'other_case')),
    other_case_id uuid REFERENCES cases,
    reason       text CHECK (length(reason) BETWEEN 1 AND 200),
    decided_at   timestamptz,
    decided_by   text CHECK (length(decided_by) BETWEEN 1 AND 100),
    CHECK (sku IS NOT NULL OR description <> ''),
    CHECK ((decision IS NULL) = (decided_at IS NULL) AND (decision IS NULL) = (decided_by IS NULL)),
    CHECK ((decision IS NOT DISTINCT FROM 'other_case') = (other_case_id IS NOT NULL))
);
CREATE INDEX return_surplus_of_receipt ON return_surplus (receipt_id);
CREATE INDEX return_surplus_undecided ON return_surplus (surplus_id) WHERE decision IS NULL;

CREATE TABLE return_inspections (
    case_id      uuid NOT NULL,
    case_line_no smallint NOT NULL,
    revision     smallint NOT NULL CHECK (revision > 0),
    resellable   integer NOT NULL CHECK (resellable >= 0),
    damaged      integer NOT NULL CHECK (damaged >= 0),
    rejected     integer NOT NULL CHECK (rejected >= 0),
    note         text NOT NULL CHECK (length(note) <= 200),
    inspected_at timestamptz NOT NULL,
    actor        text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    PRIMARY KEY (case_id, case_line_no, revision),
    FOREIGN KEY (case_id, case_line_no) REFERENCES case_lines
);

CREATE TABLE return_send_backs (
    send_back_id uuid PRIMARY KEY,
    case_id      uuid REFERENCES cases,
    case_line_no smallint,
    surplus_id   uuid UNIQUE REFERENCES return_surplus,
    quantity     integer NOT NULL CHECK (quantity > 0),
    outcome      text CHECK (outcome IN ('sent', 'handed_out')),
    carrier      text CHECK (carrier ~ '^[a-z][a-z0-9_]{0,31}$'),
    tracking_no  text CHECK (length(tracking_no) BETWEEN 1 AND 64),
    created_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    ended_by     text CHECK (length(ended_by) BETWEEN 1 AND 100),
    UNIQUE (case_id, case_line_no),
    FOREIGN KEY (case_id, case_line_no) REFERENCES case_lines,
    CHECK ((surplus_id IS NULL) = (case_line_no IS NOT NULL)),
    CHECK ((outcome IS NULL) = (ended_at IS NULL) AND (outcome IS NULL) = (ended_by IS NULL)),
    CHECK ((outcome IS NOT DISTINCT FROM 'sent') = (tracking_no IS NOT NULL) AND (carrier IS NULL) = (tracking_no IS NULL))
);
CREATE INDEX return_send_backs_open ON return_send_backs (send_back_id) WHERE outcome IS NULL;

COMMENT ON TABLE return_shipments IS 'Shipments that bring units of a case from the customer to a warehouse';
COMMENT ON COLUMN return_shipments.booked_by IS 'shop: a carrier is booked to collect it; customer: sent with a carrier and number of the customer''s own';
COMMENT ON COLUMN return_shipments.payer IS 'Bears the price; the carrier is paid by the shop if the shop has booked it';
COMMENT ON COLUMN return_shipments.event_seq IS 'Number of the last event';
COMMENT ON COLUMN return_shipments.refused_by IS 'Carriers that have refused to collect it';
COMMENT ON COLUMN return_shipments.requested_at IS 'When the booking was last requested of its carrier';
COMMENT ON COLUMN return_shipments.is_cancelling IS 'Its booking is being cancelled';
COMMENT ON COLUMN return_shipments.received_at IS 'When the warehouse first received units of it';
COMMENT ON TABLE return_shipment_lines IS 'Units of a case that a return shipment should hold';
COMMENT ON TABLE return_shipment_events IS 'What happened to a return shipment: its own steps, and what carriers report';
COMMENT ON TABLE return_receipts IS 'What a warehouse received at one time, of a case or of nobody''s';
COMMENT ON COLUMN return_receipts.case_id IS 'Null: it belongs to no known case; staff match it later';
COMMENT ON COLUMN return_receipts.resolution IS 'What was done with a receipt that belongs to no case';
COMMENT ON TABLE return_receipt_lines IS 'Units of a receipt that a case expected';
COMMENT ON TABLE return_surplus IS 'Units of a receipt that no case expected: too many, or another product';
COMMENT ON COLUMN return_surplus.sku IS 'Null: a product that the shop does not sell; see description';
COMMENT ON TABLE return_inspections IS 'What inspections found, line by line; the last revision counts';
COMMENT ON TABLE return_send_backs IS 'Units that go to the customer again: rejected by an inspection, or surplus';
COMMENT ON COLUMN return_send_backs.outcome IS 'Null: they are still at the warehouse';
