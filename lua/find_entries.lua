-- find_entries: tell which entries of a sale's stream still exist.
--
-- KEYS  1 meta  2 orders
-- ARGV  1 number of entries, then their ids
-- RETURNS {epoch, or '' if the sale is not loaded or not adopted here, the ids that exist ...}

local meta, orders = KEYS[1], KEYS[2]
local count = tonumber(ARGV[1])

-- include: server

local reply = {adopted_epoch(meta) or ''}
for i = 2, count + 1 do
  local id = ARGV[i]
  if #redis.call('XRANGE', orders, id, id) == 1 then reply[#reply + 1] = id end
end
return reply
