-- oldest_entry: the id of the oldest entry of a sale's stream, without the orders in it.
--
-- KEYS  1 orders
-- RETURNS the id, or '' if the stream is empty

local orders = KEYS[1]

local first = redis.call('XRANGE', orders, '-', '+', 'COUNT', 1)[1]
return first and first[1] or ''
