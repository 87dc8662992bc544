-- name: list_warehouse_ids
SELECT warehouse_id FROM warehouses;

-- name: upsert_vehicles
-- Equal rows are not written, so a repeated import changes nothing.
INSERT INTO vehicles AS stored
    (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to, break_from, break_to, break_s, active)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::time[], $5::time[], $6::time[], $7::time[], $8::int[],
                     $9::bool[])
ON CONFLICT (vehicle_id) DO UPDATE
SET warehouse_id = excluded.warehouse_id, capacity_g = excluded.capacity_g, shift_from = excluded.shift_from,
    shift_to = excluded.shift_to, break_from = excluded.break_from, break_to = excluded.break_to,
    break_s = excluded.break_s, active = excluded.active
WHERE (stored.warehouse_id, stored.capacity_g, stored.shift_from, stored.shift_to, stored.break_from,
       stored.break_to, stored.break_s, stored.active)
    IS DISTINCT FROM (excluded.warehouse_id, excluded.capacity_g, excluded.shift_from, excluded.shift_to,
                      excluded.break_from, excluded.break_to, excluded.break_s, excluded.active)
RETURNING xmax = 0 AS added;

-- name: upsert_places
INSERT INTO places AS stored (region, latitude, longitude)
SELECT * FROM unnest($1::text[], $2::float8[], $3::float8[])
ON CONFLICT (region) DO UPDATE SET latitude = excluded.latitude, longitude = excluded.longitude
WHERE (stored.latitude, stored.longitude) IS DISTINCT FROM (excluded.latitude, excluded.longitude)
RETURNING xmax = 0 AS added;

-- name: list_vehicles
SELECT {vehicles} FROM vehicles ORDER BY warehouse_id, vehicle_id LIMIT $1;

-- name: try_lock_planning
SELECT pg_try_advisory_lock(hashtextextended('floodgate routes', 0));

-- name: unlock_planning
SELECT pg_advisory_unlock(hashtextextended('floodgate routes', 0));

-- name: list_undeparted_vehicles
-- Active vehicles without a route on the day that has departed.
SELECT {vehicles} FROM vehicles WHERE active AND NOT EXISTS (
    SELECT FROM routes WHERE day = $1 AND routes.vehicle_id = vehicles.vehicle_id AND status <> 'planned')
ORDER BY vehicle_id;

-- name: find_depots
SELECT warehouse_id, latitude, longitude FROM warehouses WHERE warehouse_id = ANY($1::text[]);

-- name: list_pending_deliveries
-- Shipments that wait for a vehicle: booked, or on their next attempt after a failed one. Excluded are those loaded in a
-- vehicle, and those planned for another day that is still to come. A plan of a past day that never departed does not
-- count. $1 is the day to plan, $2 today.
SELECT shipment_id, warehouse_id, address, tracking_no, weight_g, deliver_from, deliver_to, latitude, longitude,
       count(*) OVER () AS total
FROM shipments
WHERE carrier = 'own_fleet' AND ended_at IS NULL AND held_reason IS NULL AND after_cancel IS NULL
  AND (status = 'booked' OR status IN ('picked_up', 'in_transit', 'out_for_delivery') AND EXISTS (
        SELECT FROM route_stops WHERE route_stops.shipment_id = shipments.shipment_id AND status = 'failed'))
  AND NOT EXISTS (
        SELECT FROM route_stops JOIN routes USING (route_id)
        WHERE route_stops.shipment_id = shipments.shipment_id AND route_stops.status = 'planned'
          AND (routes.status <> 'planned' OR routes.day <> $1 AND routes.day >= $2))
ORDER BY promised_on, planned_at, shipment_id LIMIT $3;

-- name: find_places
SELECT region, latitude, longitude FROM places
WHERE region = ANY($1::text[])
   OR regexp_replace(lower(normalize(region, NFKC)),
                     '\s|(?<=[^/][^/])(省|市|(壮族|回族|维吾尔)?自治区|特别行政区|特別行政區'
                     '|\s?(province|municipality|((zhuang|hui|uygh?ur) )?autonomous region|special administrative region)'
                     ')(?=/|$)', '', 'g') = ANY($1::text[])
ORDER BY region = ANY($1::text[]);

-- name: delete_planned_routes
-- Routes of the day that have not departed, and those of past days. Waits for a departure that is in progress.
DELETE FROM routes WHERE status = 'planned' AND (day = $1 OR day < $2);

-- name: find_departed_vehicles
-- Vehicles that departed while routes were planned: the given ones, and those that took a given shipment.
SELECT vehicle_id FROM routes WHERE day = $1 AND vehicle_id = ANY($2::text[])
UNION
SELECT vehicle_id FROM route_stops JOIN routes USING (route_id)
WHERE shipment_id = ANY($3::uuid[]) AND route_stops.status = 'planned';

-- name: insert_route
INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, break_at, planned_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: insert_stops
INSERT INTO route_stops
    (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, arrive_at, leave_at)
SELECT $1, * FROM unnest($2::smallint[], $3::uuid[], $4::float8[], $5::float8[], $6::timestamptz[], $7::timestamptz[],
                         $8::timestamptz[], $9::timestamptz[]);

-- name: list_routes
SELECT route_id, day, vehicle_id, routes.warehouse_id, status, distance_m, start_at, end_at, break_at,
       warehouses.latitude, warehouses.longitude FROM routes JOIN warehouses USING (warehouse_id)
WHERE day = $1 ORDER BY warehouse_id, vehicle_id;

-- name: list_stops
SELECT route_id, seq, shipment_id, tracking_no, weight_g, route_stops.latitude, route_stops.longitude, window_from,
       window_to, arrive_at, leave_at, route_stops.status
FROM route_stops JOIN shipments USING (shipment_id)
WHERE route_id = ANY($1::uuid[]) ORDER BY route_id, seq;

-- name: get_route
SELECT route_id, day, vehicle_id, status, start_at, end_at, break_at, planned_at FROM routes WHERE route_id = $1;

-- name: lock_route
SELECT route_id, day, vehicle_id, status, start_at, end_at, break_at, planned_at FROM routes WHERE route_id = $1
FOR UPDATE;

-- name: list_driver_stops
SELECT seq, address, tracking_no, window_from, window_to, arrive_at, route_stops.status, cod_minor, currency, note
FROM route_stops JOIN shipments USING (shipment_id) WHERE route_id = $1 ORDER BY seq;

-- name: drop_cancelled_stops
-- Stops of shipments that must not leave, or that were booked again after the planning, perhaps for another address.
DELETE FROM route_stops USING shipments
WHERE route_id = $1 AND shipments.shipment_id = route_stops.shipment_id AND (
    carrier IS DISTINCT FROM 'own_fleet' OR shipments.status = 'planned' OR ended_at IS NOT NULL
    OR held_reason IS NOT NULL OR after_cancel IS NOT NULL OR booked_at > $2);

-- name: mark_departed
UPDATE routes SET status = 'departed', departed_at = $2 WHERE route_id = $1;

-- name: loaded_shipments
-- In the order in which all transactions take order locks.
SELECT shipment_id, shipments.status FROM route_stops JOIN shipments USING (shipment_id) WHERE route_id = $1
ORDER BY order_id, shipment_id;

-- name: get_stop
SELECT shipment_id, status FROM route_stops WHERE route_id = $1 AND seq = $2;

-- name: record_report
UPDATE route_stops SET status = $3, reported_at = $4, note = $5 WHERE route_id = $1 AND seq = $2;

-- name: finish_if_all_reported
UPDATE routes SET status = 'done' WHERE route_id = $1 AND status = 'departed' AND NOT EXISTS (
    SELECT FROM route_stops WHERE route_stops.route_id = routes.route_id AND status = 'planned');
