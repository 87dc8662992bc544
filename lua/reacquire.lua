-- retake: take the stock of an order again whose goods went back, once per id; all of it or nothing.
--
-- KEYS  1 meta  2 stock  3 buyers  4 changes of the day on which the retake was made
-- ARGV  1 id  2 day (days since 1970)  3 user  4 number of SKUs, then for each: sku  units  limit (0: none)
-- GIVES {epoch, outcome number, seq}
-- OUTCOMES 0 applied {seq}  1 already {seq}  2 not_ready  3 too_old  4 refused
--
-- Whether the sale is open is not asked: the order was placed while it was. A refusal is remembered like what was
-- applied (as seq -1), so that a repeat does not say otherwise.

local APPLIED, ALREADY, NOT_READY, TOO_OLD, REFUSED = 0, 1, 2, 3, 4
local KEPT_DAYS, DAY_S = 8, 86400

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return {'', NOT_READY, 0} end
local gone_s = (tonumber(ARGV[2]) + KEPT_DAYS) * DAY_S
if gone_s <= tonumber(redis.call('TIME')[1]) then return {epoch, TOO_OLD, 0} end

local before = tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or 0)
if before > 0 then return {epoch, ALREADY, before} end
if before < 0 then return {epoch, REFUSED, 0} end

for j = 5, 3 + 3 * tonumber(ARGV[4]), 3 do
  local sku, units, limit = ARGV[j], tonumber(ARGV[j + 1]), tonumber(ARGV[j + 2])
  local free = tonumber(redis.call('HGET', KEYS[2], sku) or 0)
  local bought = limit > 0 and tonumber(redis.call('HGET', KEYS[3], ARGV[3] .. '\0' .. sku) or 0) or 0
  if free < units or (limit > 0 and bought + units > limit) then
    redis.call('HSET', KEYS[4], ARGV[1], -1)
    redis.call('EXPIREAT', KEYS[4], gone_s)
    return {epoch, REFUSED, 0}
  end
end

local seq = redis.call('HINCRBY', KEYS[1], 'change_seq', 1)
redis.call('HSET', KEYS[4], ARGV[1], seq)
redis.call('EXPIREAT', KEYS[4], gone_s)
for j = 5, 3 + 3 * tonumber(ARGV[4]), 3 do
  redis.call('HINCRBY', KEYS[2], ARGV[j], -tonumber(ARGV[j + 1]))
  if tonumber(ARGV[j + 2]) > 0 then redis.call('HINCRBY', KEYS[3], ARGV[3] .. '\0' .. ARGV[j], ARGV[j + 1]) end
end
return {epoch, APPLIED, seq}
