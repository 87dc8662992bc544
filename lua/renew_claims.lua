-- renew_claims: reset the idle time of a consumer's pending entries, so that no other consumer claims them.
--
-- KEYS  1 orders
-- ARGV  1 consumer group  2 consumer  3.. ids of entries
-- RETURNS the number of entries that are pending with this consumer
--
-- An entry that another consumer has claimed stays with it.

local orders = KEYS[1]
local group, consumer = ARGV[1], ARGV[2]

local FIRST_ENTRY = 3 -- position in ARGV
local renewed = 0
for i = FIRST_ENTRY, #ARGV do
  if #redis.call('XPENDING', orders, group, ARGV[i], ARGV[i], 1, consumer) == 1 then
    redis.call('XCLAIM', orders, group, consumer, 0, ARGV[i], 'JUSTID')
    renewed = renewed + 1
  end
end
return renewed
