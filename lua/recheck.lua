-- recheck: tell which orders of a batch reserve would still refuse. It takes nothing and costs a tenth of reserve.
--
-- KEYS  1 meta  2 stock  3 offers  4..7 idempotency keys of the days base-2 to base+1
-- ARGV  1 base day (days since 1970, the caller's clock)  2 number of orders  3 number of SKUs
--       4 number of user-SKU pairs: as many as orders, or 0 if nothing is known to be offered
--       then each SKU once, then the orders' fields in the idempotency keys, then their pairs (user NUL sku; '' for none)
-- RETURNS {outcome of the whole sale, units free of each SKU, positions of the orders whose key is known,
--          1 if units are offered to customers who waited else 0, positions of the orders whose pair has an offer}
-- OUTCOMES 0 the sale takes orders  4 not_ready  5 not_open {opens ms}  6 paused  7 closed
--
-- An order whose key is known is a replay, whatever the sale's state: reserve has to answer it.

local meta, stock, offers = KEYS[1], KEYS[2], KEYS[3]
local base_day, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local sku_count, pair_count = tonumber(ARGV[3]), tonumber(ARGV[4])

-- include: chunks
-- include: server

local TAKES_ORDERS, NOT_READY, NOT_OPEN, PAUSED, CLOSED = 0, 4, 5, 6, 7

-- include: terms

local DAY_MS = 86400000
local SKU = 4 -- position in ARGV before the first SKU
local KEY = SKU + sku_count
local PAIR = KEY + count
local BASE_DAY, FIRST_TODAY, LAST_TODAY = 6, 5, 7 -- positions in KEYS of the keys of days

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local terms = redis.call('HMGET', meta, 'state', 'opens_ms', 'closes_ms', 'run_id')
local today = BASE_DAY + math.floor(now_ms / DAY_MS) - base_day
if not terms[1] or not is_own_run_id(terms[4]) or today < FIRST_TODAY or today > LAST_TODAY
    or redis.call('EXISTS', stock) == 0 then
  return {NOT_READY, {}, {}, 0, {}}
end

local free = {}
for from, to in chunks(1, sku_count) do
  for _, units in ipairs(redis.call('HMGET', stock, unpack(ARGV, SKU + from, SKU + to))) do
    free[#free + 1] = tonumber(units or 0)
  end
end

-- Append the positions of the fields among the n items of a column that a hash has.
local function list_present(positions, key, column, n)
  for from, to in chunks(1, n) do
    for i, value in ipairs(redis.call('HMGET', key, unpack(ARGV, column + from, column + to))) do
      if value then positions[#positions + 1] = from + i - 2 end
    end
  end
end

local known, holders = {}, {}
for day = today - 1, today do
  if redis.call('EXISTS', KEYS[day]) == 1 then list_present(known, KEYS[day], KEY, count) end
end
local has_offers = redis.call('EXISTS', offers)
if has_offers == 1 then list_present(holders, offers, PAIR, pair_count) end
return {refusal_by_terms(terms, now_ms) or TAKES_ORDERS, free, known, has_offers, holders}
