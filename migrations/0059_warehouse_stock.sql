-- Stock of warehouses. Each change is a movement, which is never changed, and the stock follows it in its transaction. What
-- a sale may sell is allotted from warehouses; shipments hold allotted units until a carrier has them.
-- Locks are taken in this sequence: allotted items by SKU, an allotment, the stock by SKU and warehouse.

CREATE TABLE stock_levels (
    sku          text NOT NULL REFERENCES variants,
    warehouse_id text NOT NULL REFERENCES warehouses,
    on_hand      bigint NOT NULL DEFAULT 0,
    allotted     bigint NOT NULL DEFAULT 0,
    warn_below   bigint CHECK (warn_below > 0),
    PRIMARY KEY (sku, warehouse_id),
    CONSTRAINT stock_levels_units CHECK (0 <= allotted AND allotted <= on_hand AND on_hand <= 1000000000)
);
CREATE INDEX stock_levels_low ON stock_levels (warehouse_id, sku) WHERE on_hand < warn_below;

CREATE TABLE allotted_items (
    sale_id  text NOT NULL,
    sku      text NOT NULL,
    needed   bigint NOT NULL,
    allotted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sale_id, sku),
    FOREIGN KEY (sale_id, sku) REFERENCES sale_items,
    CHECK (0 <= allotted AND allotted <= needed)
);

CREATE TABLE allotments (
    sale_id      text NOT NULL,
    sku          text NOT NULL,
    warehouse_id text NOT NULL,
    units        bigint NOT NULL DEFAULT 0,
    planned      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sale_id, sku, warehouse_id),
    FOREIGN KEY (sale_id, sku) REFERENCES allotted_items,
    FOREIGN KEY (sku, warehouse_id) REFERENCES stock_levels,
    CONSTRAINT allotments_units CHECK (0 <= planned AND planned <= units)
);
CREATE INDEX allotments_of_stock ON allotments (sku, warehouse_id);
CREATE INDEX allotments_unplanned ON allotments (sale_id, sku) WHERE units > planned;

CREATE TABLE stock_movements (
    movement_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    movement_id    uuid,
    sku            text NOT NULL,
    warehouse_id   text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('received', 'counted', 'damaged', 'moved', 'returned', 'allotted',
                                                 'taken_back', 'shipped')),
    on_hand_delta  bigint NOT NULL,
    allotted_delta bigint NOT NULL,
    on_hand        bigint NOT NULL,
    allotted       bigint NOT NULL,
    sale_id        text,
    reference      text,
    reason         text NOT NULL,
    actor          text NOT NULL,
    moved_at       timestamptz NOT NULL,
    FOREIGN KEY (sku, warehouse_id) REFERENCES stock_levels,
    CHECK ((sale_id IS NOT NULL) = (allotted_delta <> 0)),
    CHECK (CASE kind WHEN 'received' THEN on_hand_delta > 0 AND allotted_delta = 0
                     WHEN 'counted' THEN allotted_delta = 0
                     WHEN 'damaged' THEN on_hand_delta < 0 AND allotted_delta = 0
                     WHEN 'moved' THEN on_hand_delta <> 0 AND allotted_delta = 0
                     WHEN 'returned' THEN on_hand_delta > 0 AND allotted_delta IN (0, on_hand_delta)
                     WHEN 'allotted' THEN on_hand_delta = 0 AND allotted_delta > 0
                     WHEN 'taken_back' THEN on_hand_delta = 0 AND allotted_delta < 0
                     ELSE on_hand_delta < 0 AND allotted_delta = on_hand_delta END)
);
CREATE UNIQUE INDEX stock_movements_once ON stock_movements (movement_id, sku, warehouse_id, kind);
CREATE INDEX stock_movements_of_stock ON stock_movements (sku, warehouse_id, movement_no);
CREATE INDEX stock_movements_of_sale ON stock_movements (sale_id, sku) WHERE sale_id IS NOT NULL;

CREATE TRIGGER stock_movements_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_movements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();

CREATE FUNCTION move_stock(of_sku text, in_warehouse text, the_kind text, on_hand_change bigint, allotted_change bigint,
                           of_sale text, the_id uuid, the_reference text, the_reason text, the_actor text, at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    level stock_levels;
BEGIN
    IF of_sale IS NOT NULL THEN
        PERFORM FROM allotted_items WHERE sale_id = of_sale AND sku = of_sku FOR UPDATE;
        INSERT INTO allotments (sale_id, sku, warehouse_id) VALUES (of_sale, of_sku, in_warehouse) ON CONFLICT DO NOTHING;
        UPDATE allotments SET units = units + allotted_change,
                              planned = planned + CASE WHEN the_kind = 'shipped' THEN allotted_change ELSE 0 END
        WHERE sale_id = of_sale AND sku = of_sku AND warehouse_id = in_warehouse;
        UPDATE allotted_items SET allotted = allotted + allotted_change,
                                  needed = greatest(needed, allotted + allotted_change)
        WHERE sale_id = of_sale AND sku = of_sku AND the_kind <> 'shipped';
    END IF;
    UPDATE stock_levels SET on_hand = on_hand + on_hand_change, allotted = allotted + allotted_change
    WHERE sku = of_sku AND warehouse_id = in_warehouse RETURNING * INTO STRICT level;
    INSERT INTO stock_movements (movement_id, sku, warehouse_id, kind, on_hand_delta, allotted_delta, on_hand, allotted,
                                 sale_id, reference, reason, actor, moved_at)
    VALUES (the_id, of_sku, in_warehouse, the_kind, on_hand_change, allotted_change, level.on_hand, level.allotted,
            of_sale, the_reference, the_reason, the_actor, at);
END $$;

-- As many units as an item needs and warehouses have free, from few warehouses.
CREATE FUNCTION allot_units(of_sale text, of_sku text, the_id uuid, the_reason text, the_actor text, at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    missing bigint := (SELECT needed - allotted FROM allotted_items WHERE sale_id = of_sale AND sku = of_sku FOR UPDATE);
    place record;
    taken bigint;
BEGIN
    IF missing > 0 THEN
        PERFORM FROM allotments WHERE sale_id = of_sale AND sku = of_sku ORDER BY warehouse_id FOR UPDATE;
        PERFORM FROM stock_levels WHERE sku = of_sku ORDER BY warehouse_id FOR UPDATE;
        FOR place IN SELECT warehouse_id, on_hand - allotted AS free FROM stock_levels
                     WHERE sku = of_sku AND on_hand > allotted ORDER BY free DESC, warehouse_id LOOP
            EXIT WHEN missing = 0;
            taken := least(missing, place.free);
            PERFORM move_stock(of_sku, place.warehouse_id, 'allotted', 0, taken, of_sale, the_id, NULL, the_reason,
                               the_actor, at);
            missing := missing - taken;
        END LOOP;
    END IF;
END $$;

-- An item needs fewer units: what is allotted beyond that, and no shipment holds, is free in its warehouses again.
CREATE FUNCTION take_back_units(of_sale text, of_sku text, no_longer_needed bigint, the_id uuid, the_reason text,
                                the_actor text, at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    item allotted_items;
    surplus bigint;
    place record;
    taken bigint;
BEGIN
    SELECT * INTO item FROM allotted_items WHERE sale_id = of_sale AND sku = of_sku FOR UPDATE;
    IF item.sku IS NULL THEN
        RETURN;
    END IF;
    surplus := greatest(0, item.allotted - greatest(0, item.needed - no_longer_needed));
    FOR place IN SELECT warehouse_id, units - planned AS unplanned FROM allotments
                 WHERE sale_id = of_sale AND sku = of_sku AND units > planned ORDER BY warehouse_id FOR UPDATE LOOP
        EXIT WHEN surplus = 0;
        taken := least(surplus, place.unplanned);
        PERFORM move_stock(of_sku, place.warehouse_id, 'taken_back', 0, -taken, of_sale, the_id, NULL, the_reason,
                           the_actor, at);
        surplus := surplus - taken;
    END LOOP;
    UPDATE allotted_items SET needed = greatest(needed - no_longer_needed, allotted)
    WHERE sale_id = of_sale AND sku = of_sku;
END $$;

-- The units of an item that a sale may sell, set before it opens. SKUs that no warehouse keeps have no stock.
CREATE FUNCTION allot_item(of_sale text, of_sku text, the_units bigint, the_actor text, at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
BEGIN
    IF EXISTS (SELECT FROM stock_levels WHERE sku = of_sku) THEN
        INSERT INTO allotted_items (sale_id, sku, needed) VALUES (of_sale, of_sku, 0) ON CONFLICT DO NOTHING;
        SELECT needed INTO before FROM allotted_items WHERE sale_id = of_sale AND sku = of_sku FOR UPDATE;
        IF the_units < before THEN
            PERFORM take_back_units(of_sale, of_sku, before - the_units, NULL, 'the sale is to sell fewer', the_actor, at);
        ELSE
            UPDATE allotted_items SET needed = the_units WHERE sale_id = of_sale AND sku = of_sku;
            PERFORM allot_units(of_sale, of_sku, NULL, 'the sale is to sell them', the_actor, at);
        END IF;
    END IF;
END $$;

CREATE FUNCTION take_back_after_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM take_back_units(NEW.sale_id, NEW.sku, -NEW.delta, NEW.change_id, NEW.reason, NEW.actor, NEW.ended_at);
    RETURN NULL;
END $$;
CREATE TRIGGER take_back AFTER UPDATE OF status ON stock_changes FOR EACH ROW
    WHEN (OLD.status <> 'applied' AND NEW.status = 'applied' AND NEW.delta < 0) EXECUTE FUNCTION take_back_after_change();

-- Units that shipments in a warehouse hold. What the sale lacks there is allotted from what is free, else it is refused.
CREATE FUNCTION plan_units(of_sale text, of_sku text, in_warehouse text, the_units bigint, the_shipment uuid,
                           at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    missing bigint;
BEGIN
    PERFORM FROM allotted_items WHERE sale_id = of_sale AND sku = of_sku FOR UPDATE;
    SELECT units - planned INTO missing FROM allotments
    WHERE sale_id = of_sale AND sku = of_sku AND warehouse_id = in_warehouse FOR UPDATE;
    missing := the_units - coalesce(missing, 0);
    IF missing > 0 AND the_units > 0 THEN
        PERFORM FROM stock_levels
        WHERE sku = of_sku AND warehouse_id = in_warehouse AND on_hand - allotted >= missing FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the warehouse % does not hold % more units of % for %', in_warehouse, missing, of_sku, of_sale
                USING ERRCODE = 'check_violation', CONSTRAINT = 'allotments_units', TABLE = 'allotments';
        END IF;
        PERFORM move_stock(of_sku, in_warehouse, 'allotted', 0, missing, of_sale, NULL, 'shipment ' || the_shipment,
                           'planned beyond what the sale had', 'fulfilment_worker', at);
    END IF;
    UPDATE allotments SET planned = planned + the_units
    WHERE sale_id = of_sale AND sku = of_sku AND warehouse_id = in_warehouse;
END $$;

-- `changed` are the new or deleted lines of shipments that have not left.
CREATE FUNCTION plan_units_of_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM plan_units(sale_id, sku, warehouse_id, units, shipment_id, planned_at) FROM (
        SELECT sale_id, changed.sku, warehouse_id, shipment_id, planned_at,
               CASE TG_OP WHEN 'INSERT' THEN sum(changed.quantity) ELSE -sum(changed.quantity) END AS units
        FROM changed JOIN shipments USING (shipment_id) JOIN orders ON orders.order_id = shipments.order_id
             JOIN allotted_items USING (sale_id, sku)
        WHERE handed_over_at IS NULL AND ended_at IS NULL
        GROUP BY sale_id, changed.sku, warehouse_id, shipment_id, planned_at
        ORDER BY changed.sku, warehouse_id, sale_id, shipment_id) AS planned;
    RETURN NULL;
END $$;
CREATE TRIGGER plan_units_insert AFTER INSERT ON shipment_lines REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION plan_units_of_lines();
CREATE TRIGGER plan_units_delete AFTER DELETE ON shipment_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION plan_units_of_lines();

-- A shipment leaves its warehouse with its units, or ends before that and holds them no longer.
CREATE FUNCTION ship_units() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone uuid[] := ARRAY(SELECT shipment_id FROM changed JOIN before USING (shipment_id)
                         WHERE before.handed_over_at IS NULL AND before.ended_at IS NULL
                           AND (changed.handed_over_at IS NOT NULL OR changed.ended_at IS NOT NULL));
    held record;
BEGIN
    IF cardinality(gone) = 0 THEN
        RETURN NULL;
    END IF;
    PERFORM FROM allotted_items WHERE (sale_id, sku) IN (
        SELECT sale_id, line.sku FROM shipment_lines AS line JOIN orders ON orders.order_id = line.order_id
        WHERE shipment_id = ANY(gone)) ORDER BY sku, sale_id FOR UPDATE;
    FOR held IN SELECT sale_id, line.sku, warehouse_id, shipment_id, changed.order_id, handed_over_at,
                       sum(line.quantity)::bigint AS units
                FROM changed JOIN shipment_lines AS line USING (shipment_id)
                     JOIN orders ON orders.order_id = changed.order_id JOIN allotted_items USING (sale_id, sku)
                WHERE shipment_id = ANY(gone)
                GROUP BY sale_id, line.sku, warehouse_id, shipment_id, changed.order_id, handed_over_at
                ORDER BY line.sku, warehouse_id, sale_id, shipment_id LOOP
        IF held.handed_over_at IS NOT NULL THEN
            PERFORM move_stock(held.sku, held.warehouse_id, 'shipped', -held.units, -held.units, held.sale_id,
                               held.shipment_id, 'order ' || held.order_id, 'a carrier has them', 'fulfilment_worker',
                               held.handed_over_at);
        ELSE
            UPDATE allotments SET planned = planned - held.units
            WHERE sale_id = held.sale_id AND sku = held.sku AND warehouse_id = held.warehouse_id;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER ship_units AFTER UPDATE ON shipments REFERENCING NEW TABLE AS changed OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION ship_units();

COMMENT ON TABLE stock_levels IS 'Units of a SKU in a warehouse; a SKU that has a row is kept in warehouses';
COMMENT ON COLUMN stock_levels.on_hand IS 'Units that are there, the sum of all movements';
COMMENT ON COLUMN stock_levels.allotted IS 'Units of those that sales may sell, the sum of the allotments';
COMMENT ON COLUMN stock_levels.warn_below IS 'Fewer units on hand are a warning';
COMMENT ON TABLE stock_movements IS 'Changes of the stock of warehouses, never changed themselves';
COMMENT ON COLUMN stock_movements.movement_id IS 'The request, stock change, release or shipment that moved them; each moves once';
COMMENT ON COLUMN stock_movements.on_hand IS 'Units on hand after it';
COMMENT ON TABLE allotted_items IS 'Items of sales whose units are allotted from warehouses';
COMMENT ON COLUMN allotted_items.needed IS 'Units that the sale may sell, and those that it sends again or had returned';
COMMENT ON COLUMN allotted_items.allotted IS 'Units that were allotted and not taken back, shipped ones too';
COMMENT ON TABLE allotments IS 'Units in a warehouse that a sale may sell; shipped ones are gone';
COMMENT ON COLUMN allotments.planned IS 'Units of those that shipments hold which have not left';
COMMENT ON FUNCTION move_stock IS 'Records a movement and changes the stock';
COMMENT ON FUNCTION allot_units IS 'Allots what an item of a sale needs and warehouses have free';
COMMENT ON FUNCTION take_back_units IS 'Frees what an item of a sale needs no longer';
COMMENT ON FUNCTION allot_item IS 'Sets the units that an item of a draft needs';
COMMENT ON FUNCTION plan_units IS 'Changes the units that shipments in a warehouse hold';

-- Weight and size are a variant's own; a warehouse adds the shelf.

ALTER TABLE variants
    ADD COLUMN weight_g  integer CHECK (weight_g BETWEEN 1 AND 1000000),
    ADD COLUMN length_mm integer CHECK (length_mm BETWEEN 1 AND 10000),
    ADD COLUMN width_mm  integer CHECK (width_mm BETWEEN 1 AND 10000),
    ADD COLUMN height_mm integer CHECK (height_mm BETWEEN 1 AND 10000),
    ADD CONSTRAINT variants_measures CHECK (num_nulls(weight_g, length_mm, width_mm, height_mm) IN (0, 4));
UPDATE variants SET weight_g = logistics.weight_g, length_mm = logistics.length_mm, width_mm = logistics.width_mm,
                    height_mm = logistics.height_mm
FROM product_logistics AS logistics WHERE logistics.sku = variants.sku;

DROP TRIGGER raise_generations_insert ON product_logistics;
DROP TRIGGER raise_generations_update ON product_logistics;
DROP FUNCTION raise_generations_after_first_weight;
DROP FUNCTION raise_generations_after_new_weight;
ALTER TABLE product_logistics DROP COLUMN weight_g, DROP COLUMN length_mm, DROP COLUMN width_mm, DROP COLUMN height_mm;
ALTER FUNCTION raise_generations_after_new_list_price RENAME TO raise_generations_after_new_terms;
CREATE OR REPLACE FUNCTION raise_generations_after_new_terms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_generations_of_skus(array_agg(sku)) FROM changed JOIN before USING (sku)
    WHERE (changed.price_minor, changed.weight_g) IS DISTINCT FROM (before.price_minor, before.weight_g)
    HAVING count(*) > 0;
    RETURN NULL;
END $$;

COMMENT ON TABLE product_logistics IS 'Warehouse of a variant whose stock no warehouse keeps, and its shelf there';
COMMENT ON COLUMN variants.weight_g IS 'Of one unit, in the packing in which it could be sent alone; so are its sides';
