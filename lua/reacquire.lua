-- reacquire: take the stock of a released order again, all of it or nothing, once per id.
--
-- KEYS  1 meta  2 stock  3 buyers  4 changes of the day on which the reacquisition was made
-- ARGV  1 id  2 day (days since 1970)  3 user  4 epoch whose limits these are (0: any)
--       5 number of SKUs, then for each: sku  units  limit (0: none)
-- RETURNS {epoch, outcome number, seq}
-- OUTCOMES 0 applied {seq}  1 already_applied {seq}  2 not_ready  3 too_old  4 refused
--
-- The sale need not be open: the order was placed while it was. A refusal is kept like an applied change (as seq -1),
-- so that a repeat gets the same outcome.

local meta, stock, buyers, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, day, user, limits_epoch, sku_count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

-- include: changes
-- include: server

local APPLIED, ALREADY_APPLIED, NOT_READY, TOO_OLD, REFUSED = 0, 1, 2, 3, 4
local REFUSED_SEQ = -1
local FIRST_SKU = 6 -- position in ARGV
local last_sku = FIRST_SKU + 3 * (sku_count - 1)

local epoch = adopted_epoch(meta)
if not epoch then return {'', NOT_READY, 0} end
local expiry_s = changes_expiry_s(day)
if expiry_s <= server_time_s() then return {epoch, TOO_OLD, 0} end

local seq_before = tonumber(redis.call('HGET', changes, id) or 0)
if seq_before > 0 then return {epoch, ALREADY_APPLIED, seq_before} end
if seq_before == REFUSED_SEQ then return {epoch, REFUSED, 0} end
-- A first limit loads the sale: without it these units would not count towards the user's limit.
if limits_epoch ~= '0' and limits_epoch ~= epoch then return {epoch, NOT_READY, 0} end

for i = FIRST_SKU, last_sku, 3 do
  local sku, units, limit = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local free = tonumber(redis.call('HGET', stock, sku) or 0)
  local bought = limit > 0 and tonumber(redis.call('HGET', buyers, user .. '\0' .. sku) or 0) or 0
  if free < units or (limit > 0 and bought + units > limit) then
    remember_change(changes, id, REFUSED_SEQ, expiry_s)
    return {epoch, REFUSED, 0}
  end
end

local seq = record_change(meta, changes, id, expiry_s)
for i = FIRST_SKU, last_sku, 3 do
  local sku, units, limit = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  redis.call('HINCRBY', stock, sku, -units)
  if limit > 0 then redis.call('HINCRBY', buyers, user .. '\0' .. sku, units) end
end
return {epoch, APPLIED, seq}
