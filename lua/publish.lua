-- publish: tell a loaded sale its state, times and generation.
--
-- KEYS  1 meta
-- ARGV  1 epoch  2 generation  3 state (open, paused, closed)  4 opens ms  5 closes ms or ''
-- GIVES the outcome number
-- OUTCOMES 0 published  1 older (Redis has a newer generation already)  2 not_ready (not loaded, or another load)

local PUBLISHED, OLDER, NOT_READY = 0, 1, 2

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if meta[1] ~= ARGV[1] then return NOT_READY end
if tonumber(ARGV[2]) < tonumber(meta[2]) then return OLDER end
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'state', ARGV[3], 'opens_ms', ARGV[4], 'closes_ms', ARGV[5])
return PUBLISHED
