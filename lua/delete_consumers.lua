-- delete_consumers: delete the consumers of a group that have nothing pending and have not read for a while.
--
-- KEYS  1 orders
-- ARGV  1 consumer group  2 idle ms
-- RETURNS the number of deleted consumers
--
-- The deletion of a consumer drops its pending entries. One that it read between a look and the deletion would then be
-- neither pending nor new, and no consumer would get it again.

local orders = KEYS[1]
local group, idle_ms = ARGV[1], tonumber(ARGV[2])

-- include: group

local deleted = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', orders, group)) do
  if info_field(consumer, 'pending') == 0 and info_field(consumer, 'idle') >= idle_ms then
    redis.call('XGROUP', 'DELCONSUMER', orders, group, info_field(consumer, 'name'))
    deleted = deleted + 1
  end
end
return deleted
