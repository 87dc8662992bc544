-- Statements of the address book. All changes of one customer's happen under its lock.

-- name: lock_address_book
SELECT pg_advisory_xact_lock(hashtextextended('floodgate addresses ' || $1::text, 0));

-- name: list_addresses
SELECT {saved_addresses} FROM saved_addresses WHERE user_id = $1
ORDER BY is_default DESC, address_id DESC LIMIT $2;

-- name: find_addresses
SELECT {saved_addresses} FROM saved_addresses WHERE user_id = $1 AND address_id = ANY($2::uuid[]);

-- name: insert_address
INSERT INTO saved_addresses (address_id, user_id, address, is_default, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $5);

-- name: update_address
UPDATE saved_addresses SET address = $3, updated_at = $4 WHERE user_id = $1 AND address_id = $2
RETURNING {saved_addresses};

-- name: clear_default
UPDATE saved_addresses SET is_default = false, updated_at = $3
WHERE user_id = $1 AND is_default AND address_id <> $2;

-- name: set_default
UPDATE saved_addresses SET is_default = true, updated_at = CASE WHEN is_default THEN updated_at ELSE $3 END
WHERE user_id = $1 AND address_id = $2
RETURNING {saved_addresses};

-- name: delete_address
DELETE FROM saved_addresses WHERE user_id = $1 AND address_id = $2;
