-- seal: stop a sale at once, so that its stock can be loaded anew. Until it is loaded orders get not_ready.
--
-- KEYS  1 meta  2 stock  3 buyers  4.. changes of all days that are still kept
-- GIVES 1 if the sale was loaded, else 0
--
-- The stream, the accepted orders and the idempotency keys stay: they are what the new stock is computed from.

return redis.call('DEL', KEYS[1]) + 0 * redis.call('DEL', unpack(KEYS, 2))
