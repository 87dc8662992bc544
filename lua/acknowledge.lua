-- settle: forget stream entries whose orders are all in Postgres.
--
-- KEYS  1 orders  2 accepted
-- ARGV  1 consumer group  2 number of entries, then their ids, then the ids of their orders
-- GIVES the number of entries that were still there

local CHUNK = 4000
local entries = tonumber(ARGV[2])

local function each(first, last, command, ...)
  local gone = 0
  local head = {...}
  for from = first, last, CHUNK do
    local call = {unpack(head)}
    for i = from, math.min(from + CHUNK - 1, last) do call[#call + 1] = ARGV[i] end
    gone = gone + redis.call(command, unpack(call))
  end
  return gone
end

each(3 + entries, #ARGV, 'HDEL', KEYS[2])
each(3, 2 + entries, 'XACK', KEYS[1], ARGV[1])
return each(3, 2 + entries, 'XDEL', KEYS[1])
