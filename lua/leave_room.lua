-- leave_room: take a customer out of the waiting room.
--
-- KEYS  1 room  2 room meta  3 left
-- ARGV  1 ticket hash
-- RETURNS 1 if he was in the room
--
-- Numbers of those who left are kept in `left`, so that the keeper skips them.

local room, meta, left = KEYS[1], KEYS[2], KEYS[3]
local hash = ARGV[1]

local LEFT = -1 -- left after the list was closed and before the draw

local number = tonumber(redis.call('HGET', room, hash) or LEFT)
if number == LEFT then return 0 end
if number == 0 and redis.call('HGET', meta, 'stage') == 'closed' then
  redis.call('HSET', room, hash, LEFT)
else
  redis.call('HDEL', room, hash)
  if number > 0 then redis.call('ZADD', left, number, number) end
end
return 1
