-- load: make staged stock the stock of a sale and let it take orders.
--
-- KEYS  1 meta  2 stock  3 buyers  4 orders  5 staged stock  6 staged buyers
-- ARGV  1 epoch  2 generation  3 state  4 opens ms  5 closes ms or ''  6 consumer group  7 min stream id
-- RETURNS the outcome number
-- OUTCOMES 0 loaded  1 loaded_before (by another caller; the staged stock is dropped)
--
-- Stream ids must go on rising after a wipe, since they place an order before or after an audit's cut. The last id is
-- therefore raised to the highest one that the caller knows of.

local meta, stock, buyers, orders, staged_stock, staged_buyers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local epoch, generation, state, opens_ms, closes_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local group, min_id = ARGV[6], ARGV[7]

-- include: entry_ids
-- include: server

local LOADED, LOADED_BEFORE = 0, 1

if redis.call('EXISTS', meta) == 1 then
  redis.call('DEL', staged_stock, staged_buyers)
  return LOADED_BEFORE
end
redis.call('DEL', stock, buyers)
if redis.call('EXISTS', staged_stock) == 1 then redis.call('RENAME', staged_stock, stock) end
if redis.call('EXISTS', staged_buyers) == 1 then redis.call('RENAME', staged_buyers, buyers) end

local created = redis.pcall('XGROUP', 'CREATE', orders, group, '0', 'MKSTREAM')
if created.err and not string.find(created.err, 'BUSYGROUP', 1, true) then return created end

if is_lower_id(last_entry_id(orders), min_id) then redis.call('XSETID', orders, min_id) end

redis.call('HSET', meta, 'epoch', epoch, 'counted_epoch', epoch, 'generation', generation, 'state', state,
  'opens_ms', opens_ms, 'closes_ms', closes_ms, 'change_seq', 0, 'run_id', own_run_id())
return LOADED
