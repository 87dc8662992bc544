-- load: make staged stock the stock of a sale and let it take orders.
--
-- KEYS  1 meta  2 orders  3 stock  4 buyers  5 held back  6 offers, then the staged hash of each of 3 to 6
-- ARGV  1 epoch  2 generation  3 state  4 opens ms  5 closes ms or ''  6 1 with a wait-list, else 0  7 consumer group
--       8 min stream id
-- RETURNS the outcome number
-- OUTCOMES 0 loaded  1 loaded_before (by another caller; the staged stock is dropped)
--
-- Stream ids must go on rising after a wipe, since they place an order before or after an audit's cut. The last id is
-- therefore raised to the highest one that the caller knows of.

local meta, orders, stock, buyers, held_back, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local epoch, generation, state, opens_ms, closes_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local wait_list, group, min_id = ARGV[6], ARGV[7], ARGV[8]

-- include: entry_ids
-- include: server

local LOADED, LOADED_BEFORE = 0, 1
local FIRST_STAGED = 7 -- position in KEYS

if redis.call('EXISTS', meta) == 1 then
  redis.call('DEL', unpack(KEYS, FIRST_STAGED))
  return LOADED_BEFORE
end
for i, hash in ipairs({stock, buyers, held_back, offers}) do
  local staged = KEYS[FIRST_STAGED + i - 1]
  redis.call('DEL', hash)
  if redis.call('EXISTS', staged) == 1 then redis.call('RENAME', staged, hash) end
end

local created = redis.pcall('XGROUP', 'CREATE', orders, group, '0', 'MKSTREAM')
if created.err and not string.find(created.err, 'BUSYGROUP', 1, true) then return created end

if is_lower_id(last_entry_id(orders), min_id) then redis.call('XSETID', orders, min_id) end

redis.call('HSET', meta, 'epoch', epoch, 'counted_epoch', epoch, 'generation', generation, 'state', state,
  'opens_ms', opens_ms, 'closes_ms', closes_ms, 'wait_list', wait_list, 'change_seq', 0, 'run_id', own_run_id())
return LOADED
