-- restock: change the free units of one SKU while the sale runs, once per change id.
--
-- KEYS  1 meta  2 stock  3 changes of the day on which the change was made
-- ARGV  1 id  2 day (days since 1970)  3 sku  4 delta (may be negative)
-- GIVES {epoch, outcome number, seq or units free}
-- OUTCOMES 0 applied {seq}  1 already {seq}  2 not_ready  3 too_old  4 too_few {units free}

local APPLIED, ALREADY, NOT_READY, TOO_OLD, TOO_FEW = 0, 1, 2, 3, 4
local KEPT_DAYS, DAY_S = 8, 86400

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return {'', NOT_READY, 0} end
local gone_s = (tonumber(ARGV[2]) + KEPT_DAYS) * DAY_S
if gone_s <= tonumber(redis.call('TIME')[1]) then return {epoch, TOO_OLD, 0} end

local before = redis.call('HGET', KEYS[3], ARGV[1])
if before then return {epoch, ALREADY, tonumber(before)} end

local free, delta = tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or 0), tonumber(ARGV[4])
if free + delta < 0 then return {epoch, TOO_FEW, free} end

local seq = redis.call('HINCRBY', KEYS[1], 'change_seq', 1)
redis.call('HSET', KEYS[3], ARGV[1], seq)
redis.call('EXPIREAT', KEYS[3], gone_s)
redis.call('HINCRBY', KEYS[2], ARGV[3], delta)
return {epoch, APPLIED, seq}
