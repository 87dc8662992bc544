-- reserve: take the stock of a batch of orders and queue the accepted ones, in one step.
--
-- KEYS  1 meta  2 stock  3 buyers  4 accepted  5 orders  6 offers  7..10 idempotency keys of the days base-2 to base+1
-- ARGV  1 base day (days since 1970, the caller's clock)  2 number of orders  3 number of SKUs  4 number of user-SKU pairs
--       5 the orders' lines, packed (below)  6 the orders' payloads, packed (below), then in columns:
--       each SKU of the batch once; each user-SKU pair (user NUL sku, of SKUs with a limit) once;
--       the orders' fields in the idempotency keys; their users; the head of an idempotency key's record, before the
--       entry id (order id 16 bytes, body digest 16, total 8)
-- LINES for each order: generation u64, number of lines u32, and for each line four u32: number of the SKU in its
--       column, units, number of the pair (0: no limit), limit; most significant byte first
-- PAYLOADS for each order: order id 16 bytes, length u32, payload. They go into the stream entry as they came, as its
--       field `orders`: an argument and a field for each cost more than all checks of that order.
-- RETURNS {server ms, id of the stream entry or '', one outcome per order}; an outcome is a number or {number, detail}
-- OUTCOMES 0 accepted  1 replayed {record: order id, digest, total, entry id}  2 key_reused  3 stale  4 not_ready
--          5 not_open {opens ms}  6 paused  7 closed  8 sold_out {sku}  9 over_limit {sku}
--
-- Redis does not roll back, so the script checks everything against local copies first and only then writes.
-- It reads the idempotency keys of today and yesterday and writes today's, by the server's clock: one clock decides
-- which day it is, and a key is found for at least 24 hours.
-- A line that is short of free units is taken from what its customer is offered by the wait-list, as a whole or not.
-- Most columns go to HMGET unchanged: a table per order costs more than all checks of that order.

local meta, stock, buyers, accepted, orders, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base_day, count, lines, payloads = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[5], ARGV[6]
local sku_count, pair_count = tonumber(ARGV[3]), tonumber(ARGV[4])

-- include: chunks
-- include: server

local ACCEPTED, REPLAYED, KEY_REUSED, STALE, NOT_READY = 0, 1, 2, 3, 4
local NOT_OPEN, PAUSED, CLOSED, SOLD_OUT, OVER_LIMIT = 5, 6, 7, 8, 9
local DAY_MS = 86400000
local KEY_TTL_S = 2 * 86400 + 3600
local ARGV, call, struct_unpack, sub = ARGV, redis.call, struct.unpack, string.sub

-- include: terms

-- Positions in ARGV before the first item of each column.
local SKU = 6
local PAIR = SKU + sku_count
local KEY = PAIR + pair_count
local USER = KEY + count
local RECORD = USER + count

-- Positions in KEYS of the keys of days.
local BASE_DAY, FIRST_TODAY, LAST_TODAY = 9, 8, 10

local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {now_ms, ''}

local terms = call('HMGET', meta, 'state', 'opens_ms', 'closes_ms', 'generation', 'run_id')
local today = BASE_DAY + math.floor(now_ms / DAY_MS) - base_day
if not terms[1] or not is_own_run_id(terms[5]) or today < FIRST_TODAY or today > LAST_TODAY then
  for i = 1, count do reply[i + 2] = NOT_READY end
  return reply
end

-- Return the fields of a hash named by the n items of a column.
local function hmget(key, column, n)
  if n == 0 then return {} end
  if n <= CHUNK then return call('HMGET', key, unpack(ARGV, column + 1, column + n)) end
  local values = {}
  for from, to in chunks(1, n) do
    local part = call('HMGET', key, unpack(ARGV, column + from, column + to))
    for i = from, to do values[i] = part[i - from + 1] end
  end
  return values
end

-- Set fields of a hash, given as field, value, field, value ...
local function hset(key, fields)
  for from, to in chunks(1, #fields) do call('HSET', key, unpack(fields, from, to)) end
end

local free_before, taken_before = hmget(stock, SKU, sku_count), hmget(buyers, PAIR, pair_count)
local free, taken = {}, {} -- units after the orders checked so far
for s = 1, sku_count do free[s] = tonumber(free_before[s] or 0) end
for p = 1, pair_count do taken[p] = tonumber(taken_before[p] or 0) end
local todays_records, yesterdays_records = hmget(KEYS[today], KEY, count), {}
if call('EXISTS', KEYS[today - 1]) == 1 then yesterdays_records = hmget(KEYS[today - 1], KEY, count) end

-- A SKU that joined the sale and was never stocked is sold out; but if there is no stock at all, it was wiped.
local stock_loaded = call('EXISTS', stock) == 1
local generation = tonumber(terms[4])
local refusal = refusal_by_terms(terms, now_ms)

-- Units still offered, by user NUL sku, of customers whose orders have taken some. Offers are only looked at for lines
-- that are short, so that orders from stock cost nothing more.
local has_offers
local offered = {}

-- Take a line's units from what its customer is offered. Returns false if that is less.
local function take_offer(user, s, units)
  if has_offers == nil then has_offers = call('EXISTS', offers) == 1 end
  if not has_offers then return false end
  local user_sku = user .. '\0' .. ARGV[SKU + s]
  local left = offered[user_sku] or tonumber(call('HGET', offers, user_sku) or 0)
  if left < units then return false end
  offered[user_sku] = left - units
  return true
end

-- Take the n lines of a user's order from the local copies, or none of them. Returns the outcome.
local function take(at, n, user)
  local from_offer -- numbers of the lines that are taken from an offer, nil if none is
  for line = 1, n do
    local s, units, p, limit = struct_unpack('>I4I4I4I4', lines, at + 16 * (line - 1))
    free[s] = free[s] - units
    if p > 0 then taken[p] = taken[p] + units end
    local short = free[s] < 0
    if short and take_offer(user, s, units) then
      free[s] = free[s] + units
      from_offer = from_offer or {}
      from_offer[line] = true
      short = false
    end
    if short or (p > 0 and taken[p] > limit) then
      for undone = 1, line do
        s, units, p = struct_unpack('>I4I4I4', lines, at + 16 * (undone - 1))
        if from_offer and from_offer[undone] then
          local user_sku = user .. '\0' .. ARGV[SKU + s]
          offered[user_sku] = offered[user_sku] + units
        else
          free[s] = free[s] + units
        end
        if p > 0 then taken[p] = taken[p] - units end
      end
      if short and not stock_loaded then return NOT_READY end
      return {short and SOLD_OUT or OVER_LIMIT, ARGV[SKU + s]}
    end
  end
  return ACCEPTED
end

-- accepted_orders: their numbers. replays: {position in reply, number of the order} of replays within this batch, whose
-- entry id is not known yet. accepted_keys: key field -> number of the order.
local accepted_orders, replays, accepted_keys = {}, {}, {}
local at = 1
for i = 1, count do
  local order_generation, n = struct_unpack('>I8I4', lines, at)
  local key = ARGV[KEY + i]
  local record, first = todays_records[i] or yesterdays_records[i], accepted_keys[key]
  if record or first then
    if sub(record or ARGV[RECORD + first], 17, 32) ~= sub(ARGV[RECORD + i], 17, 32) then
      reply[i + 2] = KEY_REUSED
    else
      reply[i + 2] = {REPLAYED, record or ''}
      if not record then replays[#replays + 1] = {i + 2, first} end
    end
  elseif refusal then
    reply[i + 2] = refusal
  elseif order_generation < generation then
    reply[i + 2] = STALE
  else
    local outcome = take(at + 12, n, ARGV[USER + i])
    reply[i + 2] = outcome
    if outcome == ACCEPTED then
      accepted_orders[#accepted_orders + 1] = i
      accepted_keys[key] = i
    end
  end
  at = at + 12 + 16 * n
end
if #accepted_orders == 0 then return reply end

-- From here on only writes. XADD comes first: if Redis refuses writes at all, it fails here.

-- Return the accepted orders' part of the payloads.
local function accepted_payloads()
  local parts, from, next_accepted = {}, 1, 1
  for i = 1, count do
    local to = from + 19 + struct_unpack('>I4', payloads, from + 16)
    if accepted_orders[next_accepted] == i then
      parts[next_accepted] = sub(payloads, from, to)
      next_accepted = next_accepted + 1
    end
    from = to + 1
  end
  return table.concat(parts)
end
local entry_id = call('XADD', orders, '*', 'orders', #accepted_orders == count and payloads or accepted_payloads())

local accepted_users, records = {}, {}
for n = 1, #accepted_orders do
  local i = accepted_orders[n]
  local record = ARGV[RECORD + i]
  accepted_users[2 * n - 1], accepted_users[2 * n] = sub(record, 1, 16), ARGV[USER + i]
  records[2 * n - 1], records[2 * n] = ARGV[KEY + i], record .. entry_id
end
hset(KEYS[today], records)
call('EXPIRE', KEYS[today], KEY_TTL_S)
hset(accepted, accepted_users)

-- List the items of a column whose value has changed, as item, value, item, value ...
local function list_changes(column, n, before, after)
  local fields = {}
  for k = 1, n do
    if after[k] ~= tonumber(before[k] or 0) then
      fields[#fields + 1] = ARGV[column + k]
      fields[#fields + 1] = after[k]
    end
  end
  return fields
end
hset(stock, list_changes(SKU, sku_count, free_before, free))
hset(buyers, list_changes(PAIR, pair_count, taken_before, taken))
for user_sku, left in pairs(offered) do
  if left > 0 then call('HSET', offers, user_sku, left) else call('HDEL', offers, user_sku) end
end

reply[2] = entry_id
for _, replay in ipairs(replays) do
  reply[replay[1]][2] = ARGV[RECORD + replay[2]] .. entry_id
end
return reply
