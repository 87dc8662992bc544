-- recheck: tell which orders of a batch reserve would still refuse. It takes nothing and costs a tenth of reserve.
--
-- KEYS  1 meta  2 stock  3..6 idempotency keys of the days base-2 to base+1
-- ARGV  1 base day (days since 1970, the caller's clock)  2 number of orders  3 number of SKUs
--       then each SKU once, then the orders' fields in the idempotency keys
-- RETURNS {outcome of the whole sale, units free of each SKU, positions of the orders whose key is known}
-- OUTCOMES 0 the sale takes orders  4 not_ready  5 not_open {opens ms}  6 paused  7 closed
--
-- An order whose key is known is a replay, whatever the sale's state: reserve has to answer it.

local meta, stock = KEYS[1], KEYS[2]
local base_day, count, sku_count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

-- include: chunks
-- include: server

local TAKES_ORDERS, NOT_READY, NOT_OPEN, PAUSED, CLOSED = 0, 4, 5, 6, 7

-- include: terms

local DAY_MS = 86400000
local SKU = 3 -- position in ARGV before the first SKU
local KEY = SKU + sku_count
local BASE_DAY, FIRST_TODAY, LAST_TODAY = 5, 4, 6 -- positions in KEYS of the keys of days

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local terms = redis.call('HMGET', meta, 'state', 'opens_ms', 'closes_ms', 'run_id')
local today = BASE_DAY + math.floor(now_ms / DAY_MS) - base_day
if not terms[1] or not is_own_run_id(terms[4]) or today < FIRST_TODAY or today > LAST_TODAY
    or redis.call('EXISTS', stock) == 0 then
  return {NOT_READY, {}, {}}
end

local free = {}
for from, to in chunks(1, sku_count) do
  for _, units in ipairs(redis.call('HMGET', stock, unpack(ARGV, SKU + from, SKU + to))) do
    free[#free + 1] = tonumber(units or 0)
  end
end

local known = {}
for day = today - 1, today do
  if redis.call('EXISTS', KEYS[day]) == 1 then
    for from, to in chunks(1, count) do
      for i, record in ipairs(redis.call('HMGET', KEYS[day], unpack(ARGV, KEY + from, KEY + to))) do
        if record then known[#known + 1] = from + i - 2 end
      end
    end
  end
end
return {refusal_by_terms(terms, now_ms) or TAKES_ORDERS, free, known}
