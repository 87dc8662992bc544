-- withdraw_offers: take back what is left of offers that are over, once per id, and tell which are taken.
--
-- KEYS  1 meta  2 held back  3 offers  4.. changes, one key for each day on which one of the offers was made
-- ARGV  1 epoch in which the offers were read  2 number of offers
--       then for each: id of the withdrawal  day (days since 1970) of the offer  number of its changes key (1: KEYS 4)
--       user NUL sku  sku  1 if the offer is over, else 0
-- RETURNS {epoch, one outcome per offer}; an outcome is {number, seq}
-- OUTCOMES 0 withdrawn {seq}  1 already_withdrawn {seq}  2 not_ready  3 too_old  4 taken {seq}  5 kept (it is not over)
--
-- An offer is taken when orders have left none of its units. That is a change too, kept as its negative seq: the
-- customer's next offer of the same SKU has the same field, which a repeat must not touch, and a server on which the
-- offer stands still must not be adopted.

local meta, held_back, offers = KEYS[1], KEYS[2], KEYS[3]
local read_epoch, offer_count = ARGV[1], tonumber(ARGV[2])

-- include: changes
-- include: server

local WITHDRAWN, ALREADY_WITHDRAWN, NOT_READY, TOO_OLD, TAKEN, KEPT = 0, 1, 2, 3, 4, 5
local BEFORE_CHANGES = 3 -- position in KEYS before the first changes key
local FIRST_OFFER, FIELDS = 3, 6 -- position in ARGV, number of fields of an offer

local now_s = server_time_s()
local epoch = adopted_epoch(meta)
local reply = {epoch or ''}

local function withdraw(id, day, changes, user_sku, sku, is_over)
  if epoch ~= read_epoch then return {NOT_READY, 0} end
  local expiry_s = changes_expiry_s(day)
  if expiry_s <= now_s then return {TOO_OLD, 0} end
  local seq_before = tonumber(redis.call('HGET', changes, id) or 0)
  if seq_before > 0 then return {ALREADY_WITHDRAWN, seq_before} end
  if seq_before < 0 then return {TAKEN, -seq_before} end
  local left = tonumber(redis.call('HGET', offers, user_sku) or 0)
  if left == 0 then
    local seq = redis.call('HINCRBY', meta, 'change_seq', 1)
    remember_change(changes, id, -seq, expiry_s)
    return {TAKEN, seq}
  end
  if not is_over then return {KEPT, 0} end
  local seq = record_change(meta, changes, id, expiry_s)
  redis.call('HDEL', offers, user_sku)
  redis.call('HINCRBY', held_back, sku, left)
  return {WITHDRAWN, seq}
end

for i = 1, offer_count do
  local at = FIRST_OFFER + FIELDS * (i - 1)
  local changes = KEYS[BEFORE_CHANGES + tonumber(ARGV[at + 2])]
  reply[i + 1] = withdraw(ARGV[at], ARGV[at + 1], changes, ARGV[at + 3], ARGV[at + 4], ARGV[at + 5] == '1')
end
return reply
