-- Warehouses and goods, rates, shipments and what is heard of them, the own fleet. Again the row is the job.

CREATE TABLE warehouses (
    warehouse_id text PRIMARY KEY CHECK (warehouse_id ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    address      jsonb NOT NULL CHECK (jsonb_typeof(address) = 'object'),
    latitude     double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude    double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180)
);

-- What must be known of a product to send it: where it lies, its weight, and its size as it is sent.
CREATE TABLE goods (
    sku          text PRIMARY KEY REFERENCES products,
    warehouse_id text NOT NULL REFERENCES warehouses,
    shelf        text NOT NULL CHECK (length(shelf) BETWEEN 1 AND 32),
    weight_g     integer NOT NULL CHECK (weight_g BETWEEN 1 AND 1000000),
    length_mm    integer NOT NULL CHECK (length_mm BETWEEN 1 AND 10000),
    width_mm     integer NOT NULL CHECK (width_mm BETWEEN 1 AND 10000),
    height_mm    integer NOT NULL CHECK (height_mm BETWEEN 1 AND 10000)
);

-- A rate table is imported whole and never changed; the last one is in force. A region is a country, or a country and
-- its parts as in CN/Zhejiang/Hangzhou, in small letters. A step holds for weights above from_g, up to to_g.
CREATE TABLE rate_tables (
    table_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    imported_at timestamptz NOT NULL,
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    source      text NOT NULL CHECK (length(source) BETWEEN 1 AND 200),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE TABLE rates (
    table_id    bigint NOT NULL REFERENCES rate_tables,
    carrier     text NOT NULL CHECK (carrier ~ '^[a-z][a-z0-9_]{0,31}$'),
    region      text NOT NULL CHECK (length(region) BETWEEN 2 AND 200),
    from_g      integer NOT NULL CHECK (from_g >= 0),
    to_g        integer NOT NULL CHECK (to_g > from_g),
    price_minor bigint NOT NULL CHECK (price_minor >= 0),
    days        smallint NOT NULL CHECK (days BETWEEN 0 AND 90),
    cod         boolean NOT NULL,
    PRIMARY KEY (table_id, carrier, region, from_g)
);

-- An order that is to be sent: made by the database the moment it is paid, or confirmed. news counts what has happened
-- to its shipments.
CREATE TABLE fulfilments (
    order_id       uuid PRIMARY KEY REFERENCES orders,
    status         text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'planned', 'delivered', 'done')),
    paid_at        timestamptz NOT NULL,
    promised_on    date,
    planned_at     timestamptz,
    handed_over_at timestamptz,
    delivered_at   timestamptz,
    news           integer NOT NULL DEFAULT 0,
    due_at         timestamptz,
    attempts       integer NOT NULL DEFAULT 0,
    last_error     text,
    parked         boolean NOT NULL DEFAULT false,
    CHECK ((status = 'pending') = (planned_at IS NULL)),
    CHECK ((status IN ('delivered', 'done')) = (delivered_at IS NOT NULL))
);
CREATE INDEX fulfilments_handed_over ON fulfilments (handed_over_at);
CREATE INDEX fulfilments_delivered ON fulfilments (delivered_at);
CREATE INDEX fulfilments_due ON fulfilments (due_at) WHERE due_at IS NOT NULL AND NOT parked;

CREATE FUNCTION order_is_to_be_sent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fulfilments (order_id, paid_at, due_at) VALUES (NEW.order_id, now(), now()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER order_is_to_be_sent AFTER UPDATE OF status ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.status IN ('paid', 'confirmed'))
    EXECUTE FUNCTION order_is_to_be_sent();
INSERT INTO fulfilments (order_id, paid_at, due_at) SELECT order_id, now(), now() FROM orders
WHERE status IN ('paid', 'confirmed');

-- Goods of an order's line for one address: what is in parcels that count (not cancelled, lost or sent back), what of
-- that has left, what has arrived, what the customer has given back since.
CREATE TABLE line_goods (
    order_id   uuid NOT NULL REFERENCES fulfilments,
    line_no    smallint NOT NULL,
    address_no smallint NOT NULL,
    ordered    integer NOT NULL,
    planned    integer NOT NULL DEFAULT 0,
    shipped    integer NOT NULL DEFAULT 0,
    delivered  integer NOT NULL DEFAULT 0,
    returned   integer NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, line_no, address_no),
    FOREIGN KEY (order_id, line_no, address_no) REFERENCES order_lines,
    CONSTRAINT goods_balance CHECK (0 <= returned AND returned <= delivered AND delivered <= shipped
                                    AND shipped <= planned AND planned <= ordered)
);

-- A wave: shipments that are picked in one walk.
CREATE TABLE waves (
    wave_id      uuid PRIMARY KEY,
    warehouse_id text NOT NULL REFERENCES warehouses,
    made_at      timestamptz NOT NULL,
    actor        text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100)
);

-- A shipment is one parcel from one warehouse to one address. task is what is to be done next with its carrier: book
-- it, cancel the booking, ask to be told its news, look for news. then_ says what it becomes once the booking is
-- cancelled: planned anew (as next_address says, if it does), or cancelled itself.
CREATE TABLE shipments (
    shipment_id    uuid PRIMARY KEY,
    order_id       uuid NOT NULL REFERENCES fulfilments,
    address_no     smallint NOT NULL,
    parcel_no      smallint NOT NULL CHECK (parcel_no > 0),
    warehouse_id   text NOT NULL REFERENCES warehouses,
    address        jsonb NOT NULL CHECK (jsonb_typeof(address) = 'object'),
    status         text NOT NULL DEFAULT 'planned' CHECK (status IN (
        'planned', 'booked', 'picked_up', 'in_transit', 'out_for_delivery', 'delivered', 'lost',
        'returned_to_sender', 'cancelled')),
    status_seq     integer NOT NULL DEFAULT 0,
    weight_g       integer NOT NULL CHECK (weight_g > 0),
    length_mm      integer NOT NULL CHECK (length_mm > 0),
    width_mm       integer NOT NULL CHECK (width_mm > 0),
    height_mm      integer NOT NULL CHECK (height_mm > 0),
    value_minor    bigint NOT NULL CHECK (value_minor >= 0),
    cod_minor      bigint NOT NULL DEFAULT 0 CHECK (cod_minor >= 0),
    currency       text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    carrier        text CHECK (carrier ~ '^[a-z][a-z0-9_]{0,31}$'),
    choice         jsonb,
    tried          text[] NOT NULL DEFAULT '{}',
    price_minor    bigint,
    promised_on    date NOT NULL,
    expected_on    date,
    booking_id     uuid,
    tracking_no    text CHECK (length(tracking_no) BETWEEN 1 AND 64),
    sort_code      text CHECK (length(sort_code) BETWEEN 1 AND 64),
    wave_id        uuid REFERENCES waves,
    packed_at      timestamptz,
    packed_by      text,
    held_reason    text CHECK (length(held_reason) BETWEEN 1 AND 500),
    deliver_from   time,
    deliver_to     time CHECK (deliver_to > deliver_from),
    latitude       double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude      double precision CHECK (longitude BETWEEN -180 AND 180),
    planned_at     timestamptz NOT NULL,
    booked_at      timestamptz,
    handed_over_at timestamptz,
    ended_at       timestamptz,
    last_news_at   timestamptz,
    cod_collected_at timestamptz,
    settled_at     timestamptz,
    settled_note   text CHECK (length(settled_note) BETWEEN 1 AND 500),
    replaces       uuid REFERENCES shipments,
    next_address   jsonb,
    then_          text CHECK (then_ IN ('planned', 'cancelled')),
    task           text CHECK (task IN ('book', 'cancel', 'follow', 'track')),
    due_at         timestamptz NOT NULL,
    attempts       integer NOT NULL DEFAULT 0,
    last_error     text,
    parked         boolean NOT NULL DEFAULT false,
    UNIQUE (order_id, parcel_no),
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK ((deliver_from IS NULL) = (deliver_to IS NULL)),
    CHECK (status IN ('planned', 'cancelled') OR (tracking_no IS NOT NULL AND booked_at IS NOT NULL)),
    CHECK (status IN ('planned', 'booked', 'cancelled') OR handed_over_at IS NOT NULL),
    CHECK ((status IN ('delivered', 'lost', 'returned_to_sender', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK ((task = 'cancel') = (then_ IS NOT NULL))
);
CREATE INDEX shipments_due ON shipments (due_at) WHERE task IS NOT NULL AND NOT parked;
CREATE INDEX shipments_open ON shipments (warehouse_id, shipment_id) WHERE ended_at IS NULL;
CREATE INDEX shipments_unsettled ON shipments (shipment_id)
    WHERE status IN ('lost', 'returned_to_sender') AND settled_at IS NULL;

CREATE TABLE shipment_lines (
    shipment_id uuid NOT NULL REFERENCES shipments,
    order_id    uuid NOT NULL,
    line_no     smallint NOT NULL,
    address_no  smallint NOT NULL,
    sku         text NOT NULL,
    quantity    integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (shipment_id, line_no),
    FOREIGN KEY (order_id, line_no, address_no) REFERENCES line_goods
);
CREATE INDEX shipment_lines_of ON shipment_lines (order_id);

-- What was asked of carriers. A booking is written before the carrier is called, and a parcel has at most one that may
-- stand: nobody else is asked before it is known that the last one will not come.
CREATE TABLE bookings (
    booking_id  uuid PRIMARY KEY,
    shipment_id uuid NOT NULL REFERENCES shipments,
    carrier     text NOT NULL,
    outcome     text NOT NULL DEFAULT 'asked' CHECK (outcome IN ('asked', 'booked', 'refused', 'cancelled')),
    tracking_no text CHECK (length(tracking_no) BETWEEN 1 AND 64),
    why         text,
    asked_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    UNIQUE (carrier, tracking_no),
    CHECK (outcome <> 'booked' OR tracking_no IS NOT NULL),
    CHECK ((outcome IN ('refused', 'cancelled')) = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX bookings_one_may_stand ON bookings (shipment_id) WHERE outcome IN ('asked', 'booked');
ALTER TABLE shipments ADD FOREIGN KEY (booking_id) REFERENCES bookings;

CREATE TABLE shipment_transitions (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO shipment_transitions VALUES
    ('planned', 'booked'), ('planned', 'cancelled'), ('booked', 'planned'), ('booked', 'cancelled'),
    ('booked', 'picked_up'), ('picked_up', 'in_transit'), ('in_transit', 'out_for_delivery'),
    ('out_for_delivery', 'delivered'),
    ('picked_up', 'lost'), ('in_transit', 'lost'), ('out_for_delivery', 'lost'),
    ('picked_up', 'returned_to_sender'), ('in_transit', 'returned_to_sender'),
    ('out_for_delivery', 'returned_to_sender');

-- Everything that is known to have happened to a shipment: its own steps (from_status, to_status) and what carriers
-- told (code, as they call it). seq counts up over all of an order's parcels. event_key makes the same news one event.
CREATE TABLE shipment_events (
    order_id    uuid NOT NULL,
    seq         integer NOT NULL CHECK (seq > 0),
    shipment_id uuid NOT NULL REFERENCES shipments,
    at          timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    source      text NOT NULL CHECK (source IN ('driver', 'staff', 'push', 'query', 'van')),
    actor       text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    from_status text,
    to_status   text,
    code        text CHECK (length(code) BETWEEN 1 AND 64),
    unknown     boolean NOT NULL DEFAULT false,
    contradicts boolean NOT NULL DEFAULT false,
    place       text CHECK (length(place) BETWEEN 1 AND 200),
    text        text NOT NULL CHECK (length(text) BETWEEN 1 AND 500),
    event_key   bytea,
    PRIMARY KEY (order_id, seq),
    UNIQUE (shipment_id, event_key),
    CHECK ((from_status IS NULL) = (to_status IS NULL)),
    FOREIGN KEY (from_status, to_status) REFERENCES shipment_transitions
);
CREATE INDEX shipment_events_odd ON shipment_events (shipment_id) WHERE unknown OR contradicts;

CREATE FUNCTION shipment_status_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM shipment_transitions WHERE from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'shipment % cannot go from % to %', OLD.shipment_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER shipment_status_step BEFORE UPDATE OF status ON shipments
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION shipment_status_step();

CREATE FUNCTION shipment_status_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM shipment_events WHERE order_id = NEW.order_id AND seq = NEW.status_seq
                   AND shipment_id = NEW.shipment_id AND from_status = OLD.status AND to_status = NEW.status) THEN
        RAISE EXCEPTION 'shipment % went from % to % without an event', NEW.shipment_id, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER shipment_status_recorded AFTER UPDATE OF status ON shipments
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION shipment_status_recorded();

-- Genuine pushes, each once, with what became of it. Stored before they are answered.
CREATE TABLE carrier_notices (
    system      text NOT NULL,
    notice_id   text NOT NULL CHECK (length(notice_id) BETWEEN 1 AND 256),
    received_at timestamptz NOT NULL,
    result      text NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (system, notice_id)
);

-- The own fleet. Where a region or a postcode lies (cn/zhejiang/hangzhou/xihu, cn/310000), for routes.
CREATE TABLE places (
    region    text PRIMARY KEY CHECK (length(region) BETWEEN 2 AND 200),
    latitude  double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180)
);
CREATE TABLE vehicles (
    vehicle_id   text PRIMARY KEY CHECK (vehicle_id ~ '^[A-Za-z0-9][A-Za-z0-9-]{0,31}$'),
    warehouse_id text NOT NULL REFERENCES warehouses,
    capacity_g   integer NOT NULL CHECK (capacity_g > 0),
    shift_from   time NOT NULL,
    shift_to     time NOT NULL CHECK (shift_to > shift_from),
    break_from   time CHECK (break_from >= shift_from),
    break_to     time CHECK (break_to <= shift_to),
    break_s      integer CHECK (break_s > 0),
    active       boolean NOT NULL DEFAULT true,
    CHECK ((break_from IS NULL) = (break_to IS NULL) AND (break_from IS NULL) = (break_s IS NULL)),
    CHECK (extract(epoch FROM break_to - break_from) >= break_s)
);
-- One van's day. A route that has left is not planned anew.
CREATE TABLE routes (
    route_id     uuid PRIMARY KEY,
    day          date NOT NULL,
    vehicle_id   text NOT NULL REFERENCES vehicles,
    warehouse_id text NOT NULL REFERENCES warehouses,
    status       text NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'left', 'done')),
    distance_m   bigint NOT NULL CHECK (distance_m >= 0),
    start_at     timestamptz NOT NULL,
    end_at       timestamptz NOT NULL CHECK (end_at >= start_at),
    break_at     timestamptz,
    planned_at   timestamptz NOT NULL,
    left_at      timestamptz,
    UNIQUE (day, vehicle_id),
    CHECK ((status = 'planned') = (left_at IS NULL))
);
CREATE TABLE route_stops (
    route_id    uuid NOT NULL REFERENCES routes ON DELETE CASCADE,
    seq         smallint NOT NULL CHECK (seq > 0),
    shipment_id uuid NOT NULL REFERENCES shipments,
    latitude    double precision NOT NULL,
    longitude   double precision NOT NULL,
    window_from timestamptz NOT NULL,
    window_to   timestamptz NOT NULL,
    arrive_at   timestamptz NOT NULL,
    leave_at    timestamptz NOT NULL,
    status      text NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'delivered', 'failed')),
    reported_at timestamptz,
    note        text CHECK (length(note) BETWEEN 1 AND 500),
    PRIMARY KEY (route_id, seq),
    UNIQUE (route_id, shipment_id),
    CHECK (arrive_at <= leave_at AND arrive_at BETWEEN window_from AND window_to),
    CHECK ((status = 'planned') = (reported_at IS NULL))
);
CREATE INDEX route_stops_of ON route_stops (shipment_id);
