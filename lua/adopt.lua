-- adopt: let a loaded sale take orders on this server, which is not the process that it was loaded or adopted on.
--
-- KEYS  1 meta  2 orders
-- ARGV  1 epoch so far  2 new epoch  3 generation  4 state  5 opens ms  6 closes ms or ''
--       7 1 with a wait-list, else 0  8 min stream id  9 min change_seq
-- RETURNS the outcome number
-- OUTCOMES 0 adopted  1 behind (it lacks orders or changes that are known)  2 not_ready (not loaded, or another load)

local meta, orders = KEYS[1], KEYS[2]
local epoch, new_epoch, generation, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local opens_ms, closes_ms, wait_list = ARGV[5], ARGV[6], ARGV[7]
local min_id, min_seq = ARGV[8], tonumber(ARGV[9])

-- include: entry_ids
-- include: server

local ADOPTED, BEHIND, NOT_READY = 0, 1, 2

local load = redis.call('HMGET', meta, 'epoch', 'change_seq')
if load[1] ~= epoch then return NOT_READY end
if is_lower_id(last_entry_id(orders), min_id) or tonumber(load[2]) < min_seq then return BEHIND end
redis.call('HSET', meta, 'epoch', new_epoch, 'generation', generation, 'state', state, 'opens_ms', opens_ms,
  'closes_ms', closes_ms, 'wait_list', wait_list, 'run_id', own_run_id())
return ADOPTED
