-- name: warehouse_ids
SELECT warehouse_id FROM warehouses;

-- name: put_vehicles
-- Rows that are there already and equal are left alone, so a repeated import changes nothing.
INSERT INTO vehicles AS known
    (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to, break_from, break_to, break_s, active)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::time[], $5::time[], $6::time[], $7::time[], $8::int[],
                     $9::bool[])
ON CONFLICT (vehicle_id) DO UPDATE
SET warehouse_id = excluded.warehouse_id, capacity_g = excluded.capacity_g, shift_from = excluded.shift_from,
    shift_to = excluded.shift_to, break_from = excluded.break_from, break_to = excluded.break_to,
    break_s = excluded.break_s, active = excluded.active
WHERE known.* IS DISTINCT FROM excluded.*
RETURNING xmax = 0 AS added;

-- name: put_places
INSERT INTO places AS known (region, latitude, longitude)
SELECT * FROM unnest($1::text[], $2::float8[], $3::float8[])
ON CONFLICT (region) DO UPDATE SET latitude = excluded.latitude, longitude = excluded.longitude
WHERE known.* IS DISTINCT FROM excluded.*
RETURNING xmax = 0 AS added;

-- name: vehicles
SELECT * FROM vehicles ORDER BY warehouse_id, vehicle_id LIMIT $1;

-- name: lock_planning
SELECT pg_try_advisory_lock(hashtextextended('floodgate routes', 0));

-- name: unlock_planning
SELECT pg_advisory_unlock(hashtextextended('floodgate routes', 0));

-- name: free_vehicles
-- Those that drive and have not left on the day.
SELECT * FROM vehicles WHERE active AND NOT EXISTS (
    SELECT FROM routes WHERE day = $1 AND routes.vehicle_id = vehicles.vehicle_id AND status <> 'planned')
ORDER BY vehicle_id;

-- name: depots
SELECT warehouse_id, latitude, longitude FROM warehouses WHERE warehouse_id = ANY($1::text[]);

-- name: to_deliver
-- What waits for a van: booked, or tried in vain. Not what a van has with it, nor what is planned for another day that
-- is still to come; what was planned for a day that is over and never left is taken again. $2 is today.
SELECT shipment_id, warehouse_id, address, tracking_no, weight_g, deliver_from, deliver_to, latitude, longitude,
       count(*) OVER () AS found
FROM shipments
WHERE carrier = 'own_fleet' AND ended_at IS NULL AND held_reason IS NULL AND task IS DISTINCT FROM 'cancel'
  AND (status = 'booked' OR status IN ('picked_up', 'in_transit', 'out_for_delivery') AND EXISTS (
        SELECT FROM route_stops WHERE route_stops.shipment_id = shipments.shipment_id AND status = 'failed'))
  AND NOT EXISTS (
        SELECT FROM route_stops JOIN routes USING (route_id)
        WHERE route_stops.shipment_id = shipments.shipment_id AND route_stops.status = 'planned'
          AND (routes.status <> 'planned' OR routes.day <> $1 AND routes.day >= $2))
ORDER BY promised_on, planned_at, shipment_id LIMIT $3;

-- name: known_places
SELECT region, latitude, longitude FROM places WHERE region = ANY($1::text[]);

-- name: drop_planned
-- The day's routes that have not left, and those of days that are over. Waits for those that leave at this moment.
DELETE FROM routes WHERE status = 'planned' AND (day = $1 OR day < $2);

-- name: taken
-- Vans and parcels that got onto another route while routes were planned.
SELECT vehicle_id FROM routes WHERE day = $1 AND vehicle_id = ANY($2::text[])
UNION
SELECT vehicle_id FROM route_stops JOIN routes USING (route_id)
WHERE shipment_id = ANY($3::uuid[]) AND route_stops.status = 'planned';

-- name: add_route
INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, break_at, planned_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: add_stops
INSERT INTO route_stops
    (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, arrive_at, leave_at)
SELECT $1, * FROM unnest($2::smallint[], $3::uuid[], $4::float8[], $5::float8[], $6::timestamptz[], $7::timestamptz[],
                         $8::timestamptz[], $9::timestamptz[]);

-- name: routes_of
SELECT routes.*, warehouses.latitude, warehouses.longitude FROM routes JOIN warehouses USING (warehouse_id)
WHERE day = $1 ORDER BY warehouse_id, vehicle_id;

-- name: stops_of
SELECT route_stops.*, tracking_no, weight_g FROM route_stops JOIN shipments USING (shipment_id)
WHERE route_id = ANY($1::uuid[]) ORDER BY route_id, seq;

-- name: route
SELECT route_id, day, vehicle_id, status, start_at, end_at, break_at, planned_at FROM routes WHERE route_id = $1;

-- name: lock_route
SELECT route_id, day, vehicle_id, status, start_at, end_at, break_at, planned_at FROM routes WHERE route_id = $1
FOR UPDATE;

-- name: board
SELECT seq, address, tracking_no, window_from, window_to, arrive_at, route_stops.status, cod_minor, currency, note
FROM route_stops JOIN shipments USING (shipment_id) WHERE route_id = $1 ORDER BY seq;

-- name: drop_called_off
-- What must not go, or was booked anew, perhaps for another address, after the route was planned.
DELETE FROM route_stops USING shipments
WHERE route_id = $1 AND shipments.shipment_id = route_stops.shipment_id AND (
    carrier IS DISTINCT FROM 'own_fleet' OR shipments.status = 'planned' OR ended_at IS NOT NULL
    OR held_reason IS NOT NULL OR task IS NOT DISTINCT FROM 'cancel' OR booked_at > $2);

-- name: leave
UPDATE routes SET status = 'departed', departed_at = $2 WHERE route_id = $1;

-- name: on_board
-- In the order in which everybody takes the locks of orders.
SELECT shipment_id, shipments.status FROM route_stops JOIN shipments USING (shipment_id) WHERE route_id = $1
ORDER BY order_id, shipment_id;

-- name: stop
SELECT shipment_id, status FROM route_stops WHERE route_id = $1 AND seq = $2;

-- name: report
UPDATE route_stops SET status = $3, reported_at = $4, note = $5 WHERE route_id = $1 AND seq = $2;

-- name: finish
UPDATE routes SET status = 'done' WHERE route_id = $1 AND status = 'departed' AND NOT EXISTS (
    SELECT FROM route_stops WHERE route_stops.route_id = routes.route_id AND status = 'planned');
