-- offer_units: move units that are held back to the customers they are offered to, once per offer id.
--
-- KEYS  1 meta  2 held back  3 offers  4.. changes, one key for each day on which one of the offers was made
-- ARGV  1 epoch in which the offers were read  2 number of offers
--       then for each: id  day (days since 1970)  number of its changes key (1: KEYS 4)  user NUL sku  sku  units
-- RETURNS {epoch, one outcome per offer}; an outcome is {number, seq}
-- OUTCOMES 0 applied {seq}  1 already_applied {seq}  2 not_ready  3 too_old  4 refused (fewer units are held back)
--
-- A load restores the offers that Postgres has, so those that were read before it are not applied to it. A refusal is
-- kept like an applied change (as seq -1), so that a repeat gets the same outcome.

local meta, held_back, offers = KEYS[1], KEYS[2], KEYS[3]
local read_epoch, offer_count = ARGV[1], tonumber(ARGV[2])

-- include: changes
-- include: server

local APPLIED, ALREADY_APPLIED, NOT_READY, TOO_OLD, REFUSED = 0, 1, 2, 3, 4
local REFUSED_SEQ = -1
local BEFORE_CHANGES = 3 -- position in KEYS before the first changes key
local FIRST_OFFER, FIELDS = 3, 6 -- position in ARGV, number of fields of an offer

local now_s = server_time_s()
local epoch = adopted_epoch(meta)
local reply = {epoch or ''}

local function offer(id, day, changes, user_sku, sku, units)
  if epoch ~= read_epoch then return {NOT_READY, 0} end
  local expiry_s = changes_expiry_s(day)
  if expiry_s <= now_s then return {TOO_OLD, 0} end
  local seq_before = tonumber(redis.call('HGET', changes, id) or 0)
  if seq_before > 0 then return {ALREADY_APPLIED, seq_before} end
  local held = tonumber(redis.call('HGET', held_back, sku) or 0)
  if seq_before == REFUSED_SEQ or held < units then
    remember_change(changes, id, REFUSED_SEQ, expiry_s)
    return {REFUSED, 0}
  end
  local seq = record_change(meta, changes, id, expiry_s)
  if held > units then
    redis.call('HINCRBY', held_back, sku, -units)
  else
    redis.call('HDEL', held_back, sku)
  end
  redis.call('HINCRBY', offers, user_sku, units)
  return {APPLIED, seq}
end

for i = 1, offer_count do
  local at = FIRST_OFFER + FIELDS * (i - 1)
  local changes = KEYS[BEFORE_CHANGES + tonumber(ARGV[at + 2])]
  reply[i + 1] = offer(ARGV[at], ARGV[at + 1], changes, ARGV[at + 3], ARGV[at + 4], tonumber(ARGV[at + 5]))
end
return reply
