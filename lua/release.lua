-- release: return stock and limit to a sale, once per release id. Units that are written off return to the limit only.
--
-- KEYS  1 meta  2 stock  3 buyers  4 held back  5.. changes, one key for each day on which one of the releases was made
-- ARGV  1 number of releases, then for each: id  day (days since 1970)  number of its changes key (1: KEYS 5)  user
--       number of SKUs, then for each SKU: sku  units (of the limit)  units that return to stock, which may be fewer
-- RETURNS {epoch, one outcome per release}; an outcome is {number, seq}
-- OUTCOMES 0 applied {seq}  1 already_applied {seq}  2 not_ready  3 too_old

local meta, stock, buyers, held_back = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local release_count = tonumber(ARGV[1])

-- include: changes
-- include: returns
-- include: server

local APPLIED, ALREADY_APPLIED, NOT_READY, TOO_OLD = 0, 1, 2, 3
local BEFORE_CHANGES = 4 -- position in KEYS before the first changes key
local FIRST_RELEASE = 2 -- position in ARGV

local now_s = server_time_s()
local epoch = adopted_epoch(meta)
local returned = choose_returned(meta, stock, held_back)
local reply = {epoch or ''}

-- Return units of one SKU to the stock, and reduce what counts towards the user's limit.
local function return_units(user, sku, units, stock_units)
  if stock_units > 0 then redis.call('HINCRBY', returned, sku, stock_units) end
  local user_sku = user .. '\0' .. sku
  local bought = tonumber(redis.call('HGET', buyers, user_sku) or 0)
  if bought > units then
    redis.call('HINCRBY', buyers, user_sku, -units)
  elseif bought > 0 then
    redis.call('HDEL', buyers, user_sku)
  end
end

local at = FIRST_RELEASE
for i = 1, release_count do
  local id, day, user, sku_count = ARGV[at], ARGV[at + 1], ARGV[at + 3], tonumber(ARGV[at + 4])
  local changes = KEYS[BEFORE_CHANGES + tonumber(ARGV[at + 2])]
  at = at + 5
  local expiry_s = changes_expiry_s(day)
  if not epoch then
    reply[i + 1] = {NOT_READY, 0}
  elseif expiry_s <= now_s then
    reply[i + 1] = {TOO_OLD, 0}
  else
    local seq_before = redis.call('HGET', changes, id)
    if seq_before then
      reply[i + 1] = {ALREADY_APPLIED, tonumber(seq_before)}
    else
      local seq = record_change(meta, changes, id, expiry_s)
      for j = at, at + 3 * (sku_count - 1), 3 do
        return_units(user, ARGV[j], tonumber(ARGV[j + 1]), tonumber(ARGV[j + 2]))
      end
      reply[i + 1] = {APPLIED, seq}
    end
  end
  at = at + 3 * sku_count
end
return reply
