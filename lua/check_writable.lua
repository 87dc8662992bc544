-- check_writable: pass every check that Redis makes before a script may write, and write nothing.
--
-- KEYS  1 a key that never exists
-- RETURNS 0

local missing = KEYS[1]

-- Like an order this command needs memory and the right to write. At a missing key it has nothing to store.
return redis.call('SETRANGE', missing, 0, '')
