-- publish: give a loaded sale its terms.
--
-- KEYS  1 meta
-- ARGV  1 epoch  2 generation  3 state (open, paused, closed)  4 opens ms  5 closes ms or ''
--       6 1 with a wait-list, else 0
-- RETURNS the outcome number
-- OUTCOMES 0 published  1 older (Redis has a newer generation already)  2 not_ready (not loaded, or another load)

local meta = KEYS[1]
local epoch, generation, state = ARGV[1], ARGV[2], ARGV[3]
local opens_ms, closes_ms, wait_list = ARGV[4], ARGV[5], ARGV[6]

local PUBLISHED, OLDER, NOT_READY = 0, 1, 2

local current = redis.call('HMGET', meta, 'epoch', 'generation')
if current[1] ~= epoch then return NOT_READY end
if tonumber(generation) < tonumber(current[2]) then return OLDER end
redis.call('HSET', meta, 'generation', generation, 'state', state, 'opens_ms', opens_ms, 'closes_ms', closes_ms,
  'wait_list', wait_list)
return PUBLISHED
