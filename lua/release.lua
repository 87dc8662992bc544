-- release: give stock and limit back, once per release id.
--
-- KEYS  1 meta  2 stock  3 buyers  4.. changes, one key for each day on which one of the releases was made
-- ARGV  1 number of releases, then for each: id  day (days since 1970)  number of its changes key (1: KEYS 4)  user
--       number of SKUs, then for each SKU: sku  units
-- GIVES {epoch, one outcome a release}; an outcome is {number, seq}
-- OUTCOMES 0 applied {seq}  1 already {seq}  2 not_ready  3 too_old
--
-- The day is that of the release, not of the call: a repeat looks in the very key the first call wrote. Once that
-- key is due to be gone (8 days) nobody can tell any more, and too_old says so instead of giving the stock twice.

local APPLIED, ALREADY, NOT_READY, TOO_OLD = 0, 1, 2, 3
local KEPT_DAYS, DAY_S = 8, 86400

local now_s = tonumber(redis.call('TIME')[1])
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local reply = {epoch or ''}

local at = 2
for i = 1, tonumber(ARGV[1]) do
  local id, day, changes, user = ARGV[at], tonumber(ARGV[at + 1]), KEYS[3 + tonumber(ARGV[at + 2])], ARGV[at + 3]
  local skus = tonumber(ARGV[at + 4])
  at = at + 5
  local gone_s = (day + KEPT_DAYS) * DAY_S
  if not epoch then
    reply[i + 1] = {NOT_READY, 0}
  elseif gone_s <= now_s then
    reply[i + 1] = {TOO_OLD, 0}
  else
    local before = redis.call('HGET', changes, id)
    if before then
      reply[i + 1] = {ALREADY, tonumber(before)}
    else
      local seq = redis.call('HINCRBY', KEYS[1], 'change_seq', 1)
      redis.call('HSET', changes, id, seq)
      redis.call('EXPIREAT', changes, gone_s)
      for j = at, at + 2 * (skus - 1), 2 do
        local sku, units = ARGV[j], tonumber(ARGV[j + 1])
        redis.call('HINCRBY', KEYS[2], sku, units)
        local buyer = user .. '\0' .. sku
        local bought = tonumber(redis.call('HGET', KEYS[3], buyer) or 0)
        if bought > units then
          redis.call('HINCRBY', KEYS[3], buyer, -units)
        elseif bought > 0 then
          redis.call('HDEL', KEYS[3], buyer)
        end
      end
      reply[i + 1] = {APPLIED, seq}
    end
  end
  at = at + 2 * skus
end
return reply
