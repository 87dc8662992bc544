-- change_stock: change the free units of one SKU while the sale runs, once per change id.
--
-- KEYS  1 meta  2 stock  3 changes of the day on which the change was made  4 held back
-- ARGV  1 id  2 day (days since 1970)  3 sku  4 delta (may be negative)
-- RETURNS {epoch, outcome number, seq or units free}
-- OUTCOMES 0 applied {seq}  1 already_applied {seq}  2 not_ready  3 too_old  4 not_enough {units free}
--
-- Units are taken from the free ones only: those that are held back or offered are promised to customers who wait.
-- A refusal is kept like an applied change (as seq -1): two processes that apply one change get the same outcome.

local meta, stock, changes, held_back = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, day, sku, delta = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- include: changes
-- include: returns
-- include: server

local APPLIED, ALREADY_APPLIED, NOT_READY, TOO_OLD, NOT_ENOUGH = 0, 1, 2, 3, 4
local REFUSED_SEQ = -1

local epoch = adopted_epoch(meta)
if not epoch then return {'', NOT_READY, 0} end
local expiry_s = changes_expiry_s(day)
if expiry_s <= server_time_s() then return {epoch, TOO_OLD, 0} end

local seq_before = tonumber(redis.call('HGET', changes, id) or 0)
if seq_before > 0 then return {epoch, ALREADY_APPLIED, seq_before} end

local free = tonumber(redis.call('HGET', stock, sku) or 0)
if seq_before == REFUSED_SEQ then return {epoch, NOT_ENOUGH, free} end
if free + delta < 0 then
  remember_change(changes, id, REFUSED_SEQ, expiry_s)
  return {epoch, NOT_ENOUGH, free}
end

local seq = record_change(meta, changes, id, expiry_s)
redis.call('HINCRBY', delta > 0 and choose_returned(meta, stock, held_back) or stock, sku, delta)
return {epoch, APPLIED, seq}
