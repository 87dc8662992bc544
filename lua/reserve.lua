-- reserve: take the stock of a batch of orders and queue those that get it, in one step.
--
-- KEYS  1 meta  2 stock  3 buyers  4 accepted  5 orders  6..9 keys of the days base-2, base-1, base, base+1
-- ARGV  1 base day (days since 1970, the caller's clock)  2 number of orders, then for each order:
--       generation  key field  record (order id 16 bytes, body digest 16, total 8)  user  payload
--       number of SKUs, then for each SKU: sku  units  limit (0: none)
-- GIVES {server ms, id of the stream entry or '', one outcome an order}; an outcome is a number or {number, detail}
-- OUTCOMES 0 accepted  1 replayed {record and entry id}  2 key_reused  3 stale  4 not_ready  5 not_open {opens ms}
--          6 paused  7 closed  8 sold_out {sku}  9 over_limit {sku}
--
-- Redis does not roll back, so everything is checked against local copies first and written only then.
-- The keys of today and yesterday are looked at and today's is written, by the server's clock: one clock decides
-- which day it is, and a key is found for at least 24 hours.

local ACCEPTED, REPLAYED, KEY_REUSED, STALE, NOT_READY = 0, 1, 2, 3, 4
local NOT_OPEN, PAUSED, CLOSED, SOLD_OUT, OVER_LIMIT = 5, 6, 7, 8, 9
local CHUNK = 4000 -- below the size of Lua's C stack, which bounds unpack
local DAY_MS = 86400000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = tonumber(ARGV[2])
local reply = {now, ''}

local meta = redis.call('HMGET', KEYS[1], 'state', 'opens_ms', 'closes_ms', 'generation')
local today = 8 + math.floor(now / DAY_MS) - tonumber(ARGV[1])
if not meta[1] or today < 7 or today > 9 then
  for i = 1, count do reply[i + 2] = NOT_READY end
  return reply
end

local function hmget(key, fields)
  local found = {}
  for first = 1, #fields, CHUNK do
    local last = math.min(first + CHUNK - 1, #fields)
    local values = redis.call('HMGET', key, unpack(fields, first, last))
    for i = first, last do found[fields[i]] = values[i - first + 1] end
  end
  return found
end

local function hset(key, pairs_)
  for first = 1, #pairs_, CHUNK do
    redis.call('HSET', key, unpack(pairs_, first, math.min(first + CHUNK - 1, #pairs_)))
  end
end

-- What the batch will ask about.
local orders, key_fields, skus, buyer_fields, known = {}, {}, {}, {}, {}
local at = 3
for i = 1, count do
  local order = {
    generation = tonumber(ARGV[at]), key = ARGV[at + 1], record = ARGV[at + 2], user = ARGV[at + 3],
    payload = ARGV[at + 4], lines = {},
  }
  key_fields[i] = order.key
  local lines = tonumber(ARGV[at + 5])
  at = at + 6
  for j = 1, lines do
    local sku, limit = ARGV[at], tonumber(ARGV[at + 2])
    local line = {sku = sku, units = tonumber(ARGV[at + 1]), limit = limit}
    if not known[sku] then
      known[sku] = true
      skus[#skus + 1] = sku
    end
    if limit > 0 then
      line.buyer = order.user .. '\0' .. sku
      buyer_fields[#buyer_fields + 1] = line.buyer
    end
    order.lines[j] = line
    at = at + 3
  end
  orders[i] = order
end

local stock = hmget(KEYS[2], skus)
local bought = hmget(KEYS[3], buyer_fields)
local seen = hmget(KEYS[today], key_fields)
local seen_before = hmget(KEYS[today - 1], key_fields)

-- A SKU that joined the sale and was never stocked is sold out; but if there is no stock at all, it was wiped.
local stock_loaded = redis.call('EXISTS', KEYS[2]) == 1
local refusal = false -- of the whole sale, for every order that is not a replay
if meta[1] == 'closed' or (meta[3] ~= '' and now >= tonumber(meta[3])) then
  refusal = CLOSED
elseif meta[1] == 'paused' then
  refusal = PAUSED
elseif now < tonumber(meta[2]) then
  refusal = {NOT_OPEN, tonumber(meta[2])}
end

local function check(order)
  if refusal then return refusal end
  if order.generation < tonumber(meta[4]) then return STALE end
  local units, taken = {}, {}
  for _, line in ipairs(order.lines) do
    local sku = line.sku
    local free = tonumber(stock[sku] or 0)
    units[sku] = (units[sku] or 0) + line.units
    if units[sku] > free then
      if not stock_loaded then return NOT_READY end
      return {SOLD_OUT, sku}
    end
    if line.buyer then
      taken[line.buyer] = (taken[line.buyer] or tonumber(bought[line.buyer] or 0)) + line.units
      if taken[line.buyer] > line.limit then return {OVER_LIMIT, sku} end
    end
  end
  for sku, n in pairs(units) do stock[sku] = tonumber(stock[sku]) - n end
  for field, n in pairs(taken) do bought[field] = n end
  return ACCEPTED
end

local accepted, repeats, mine = {}, {}, {}
for i, order in ipairs(orders) do
  local record = seen[order.key] or seen_before[order.key] or mine[order.key]
  if record then
    if string.sub(record, 17, 32) ~= string.sub(order.record, 17, 32) then
      reply[i + 2] = KEY_REUSED
    else
      reply[i + 2] = {REPLAYED, record}
      if mine[order.key] then repeats[#repeats + 1] = i + 2 end -- its entry id is not known yet
    end
  else
    reply[i + 2] = check(order)
    if reply[i + 2] == ACCEPTED then
      accepted[#accepted + 1] = order
      mine[order.key] = order.record
    end
  end
end
if #accepted == 0 then return reply end

-- From here on only writes. XADD comes first: should Redis refuse to write at all, it says so here.
local entry, promised, records = {}, {}, {}
local stock_now, bought_now, written = {}, {}, {}
local function once(list, field, value)
  if not written[field] then
    written[field] = true
    list[#list + 1] = field
    list[#list + 1] = value
  end
end
for _, order in ipairs(accepted) do
  local id = string.sub(order.record, 1, 16)
  entry[#entry + 1] = id
  entry[#entry + 1] = order.payload
  promised[#promised + 1] = id
  promised[#promised + 1] = order.user
  for _, line in ipairs(order.lines) do
    once(stock_now, line.sku, stock[line.sku])
    if line.buyer then once(bought_now, line.buyer, bought[line.buyer]) end
  end
end
local entry_id = redis.call('XADD', KEYS[5], '*', unpack(entry))
for _, order in ipairs(accepted) do
  records[#records + 1] = order.key
  records[#records + 1] = order.record .. entry_id
end
hset(KEYS[today], records)
redis.call('EXPIRE', KEYS[today], 2 * 86400 + 3600)
hset(KEYS[4], promised)
hset(KEYS[2], stock_now)
hset(KEYS[3], bought_now)

reply[2] = entry_id
for _, place in ipairs(repeats) do reply[place][2] = reply[place][2] .. entry_id end
return reply
