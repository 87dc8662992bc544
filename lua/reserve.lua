-- reserve: take the stock of a batch of orders and queue those that get it, in one step.
--
-- KEYS  1 meta  2 stock  3 buyers  4 accepted  5 orders  6..9 keys of the days base-2, base-1, base, base+1
-- ARGV  1 base day (days since 1970, the caller's clock)  2 number of orders  3 number of SKUs  4 number of buyers
--       5 the orders' lines, packed (below), then in columns:
--       each SKU of the batch once; each buyer (user NUL sku, of SKUs with a limit) once;
--       the orders' key fields; their order ids (16 bytes) and payloads in turn; their users;
--       what a key's record holds besides the order id and the entry id (body digest 16 bytes, total 8)
-- LINES for each order: generation u64, number of lines u32, and for each line four u32: number of the SKU in its
--       column, units, number of the buyer (0: no limit), limit; most significant byte first
-- GIVES {server ms, id of the stream entry or '', one outcome an order}; an outcome is a number or {number, detail}
-- OUTCOMES 0 accepted  1 replayed {record: order id, digest, total, entry id}  2 key_reused  3 stale  4 not_ready
--          5 not_open {opens ms}  6 paused  7 closed  8 sold_out {sku}  9 over_limit {sku}
--
-- Redis does not roll back, so everything is checked against local copies first and written only then.
-- The keys of today and yesterday are looked at and today's is written, by the server's clock: one clock decides
-- which day it is, and a key is found for at least 24 hours.
-- Columns, so that most of them go on to HMGET and XADD as they came: a table an order costs more than all its checks.

local ACCEPTED, REPLAYED, KEY_REUSED, STALE, NOT_READY = 0, 1, 2, 3, 4
local NOT_OPEN, PAUSED, CLOSED, SOLD_OUT, OVER_LIMIT = 5, 6, 7, 8, 9
local CHUNK = 4000 -- below the size of Lua's C stack, which bounds unpack
local DAY_MS = 86400000
local ARGV, call, struct_unpack, sub = ARGV, redis.call, struct.unpack, string.sub

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count, skus, buyers, lines = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local SKU = 5
local BUYER = SKU + skus
local KEY = BUYER + buyers
local ORDER = KEY + count
local USER = ORDER + 2 * count
local REST = USER + count
local reply = {now, ''}

local meta = call('HMGET', KEYS[1], 'state', 'opens_ms', 'closes_ms', 'generation')
local today = 8 + math.floor(now / DAY_MS) - tonumber(ARGV[1])
if not meta[1] or today < 7 or today > 9 then
  for i = 1, count do reply[i + 2] = NOT_READY end
  return reply
end

local function hmget(key, from, n)
  if n == 0 then return {} end
  if n <= CHUNK then return call('HMGET', key, unpack(ARGV, from + 1, from + n)) end
  local found = {}
  for first = 1, n, CHUNK do
    local last = math.min(first + CHUNK - 1, n)
    local values = call('HMGET', key, unpack(ARGV, from + first, from + last))
    for i = first, last do found[i] = values[i - first + 1] end
  end
  return found
end

local function hset(key, pairs_)
  for first = 1, #pairs_, CHUNK do
    call('HSET', key, unpack(pairs_, first, math.min(first + CHUNK - 1, #pairs_)))
  end
end

local stock, bought = hmget(KEYS[2], SKU, skus), hmget(KEYS[3], BUYER, buyers)
local free, taken = {}, {} -- units after the orders looked at so far
for s = 1, skus do free[s] = tonumber(stock[s] or 0) end
for b = 1, buyers do taken[b] = tonumber(bought[b] or 0) end
local seen, seen_before = hmget(KEYS[today], KEY, count), {}
if call('EXISTS', KEYS[today - 1]) == 1 then seen_before = hmget(KEYS[today - 1], KEY, count) end

-- A SKU that joined the sale and was never stocked is sold out; but if there is no stock at all, it was wiped.
local stock_loaded = call('EXISTS', KEYS[2]) == 1
local generation = tonumber(meta[4])
local refusal = false -- of the whole sale, for every order that is not a replay
if meta[1] == 'closed' or (meta[3] ~= '' and now >= tonumber(meta[3])) then
  refusal = CLOSED
elseif meta[1] == 'paused' then
  refusal = PAUSED
elseif now < tonumber(meta[2]) then
  refusal = {NOT_OPEN, tonumber(meta[2])}
end

-- Take an order's lines from the local copies, or none of them.
local function take(at, n)
  for line = 1, n do
    local s, units, b, limit = struct_unpack('>I4I4I4I4', lines, at + 16 * (line - 1))
    free[s] = free[s] - units
    if b > 0 then taken[b] = taken[b] + units end
    local short = free[s] < 0
    if short or (b > 0 and taken[b] > limit) then
      for back = 1, line do
        s, units, b = struct_unpack('>I4I4I4', lines, at + 16 * (back - 1))
        free[s] = free[s] + units
        if b > 0 then taken[b] = taken[b] - units end
      end
      if short and not stock_loaded then return NOT_READY end
      return {short and SOLD_OUT or OVER_LIMIT, ARGV[SKU + s]}
    end
  end
  return ACCEPTED
end

local accepted, repeats, mine = {}, {}, {}
local at = 1
for i = 1, count do
  local order_generation, n = struct_unpack('>I8I4', lines, at)
  local key = ARGV[KEY + i]
  local record, first = seen[i] or seen_before[i], mine[key]
  if record or first then
    local digest = record and sub(record, 17, 32) or sub(ARGV[REST + first], 1, 16)
    if digest ~= sub(ARGV[REST + i], 1, 16) then
      reply[i + 2] = KEY_REUSED
    else
      reply[i + 2] = {REPLAYED, record or ''}
      if not record then repeats[#repeats + 1] = {i + 2, first} end -- its entry id is not known yet
    end
  elseif refusal then
    reply[i + 2] = refusal
  elseif order_generation < generation then
    reply[i + 2] = STALE
  else
    local outcome = take(at + 12, n)
    reply[i + 2] = outcome
    if outcome == ACCEPTED then
      accepted[#accepted + 1] = i
      mine[key] = i
    end
  end
  at = at + 12 + 16 * n
end
if #accepted == 0 then return reply end

-- From here on only writes. XADD comes first: should Redis refuse to write at all, it says so here.
local entry_id
if #accepted == count then
  entry_id = call('XADD', KEYS[5], '*', unpack(ARGV, ORDER + 1, ORDER + 2 * count))
else
  local entry = {}
  for n, i in ipairs(accepted) do
    entry[2 * n - 1], entry[2 * n] = ARGV[ORDER + 2 * i - 1], ARGV[ORDER + 2 * i]
  end
  entry_id = call('XADD', KEYS[5], '*', unpack(entry))
end

local promised, records = {}, {}
for n = 1, #accepted do
  local i = accepted[n]
  local id = ARGV[ORDER + 2 * i - 1]
  promised[2 * n - 1], promised[2 * n] = id, ARGV[USER + i]
  records[2 * n - 1], records[2 * n] = ARGV[KEY + i], id .. ARGV[REST + i] .. entry_id
end
hset(KEYS[today], records)
call('EXPIRE', KEYS[today], 2 * 86400 + 3600)
hset(KEYS[4], promised)

-- Each SKU and each buyer once, and only those that lost or gained something.
local function changed(names, n, before, after)
  local list = {}
  for k = 1, n do
    if after[k] ~= tonumber(before[k] or 0) then
      list[#list + 1] = ARGV[names + k]
      list[#list + 1] = after[k]
    end
  end
  return list
end
hset(KEYS[2], changed(SKU, skus, stock, free))
hset(KEYS[3], changed(BUYER, buyers, bought, taken))

reply[2] = entry_id
for _, again in ipairs(repeats) do
  local i = again[2]
  reply[again[1]][2] = ARGV[ORDER + 2 * i - 1] .. ARGV[REST + i] .. entry_id
end
return reply
