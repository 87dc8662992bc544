-- unload: stop a sale at once so that its stock can be loaded again. Until then orders get not_ready.
--
-- KEYS  1 meta  2 stock  3 buyers  4 held back  5 offers  6.. changes of all days that are still kept
-- RETURNS 1 if the sale was loaded, else 0
--
-- The stream, the accepted orders and the idempotency keys stay: the new stock is computed from them.

local meta, stock, buyers, held_back, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local FIRST_CHANGES = 6 -- position in KEYS
local was_loaded = redis.call('DEL', meta)
redis.call('DEL', stock, buyers, held_back, offers, unpack(KEYS, FIRST_CHANGES))
return was_loaded
