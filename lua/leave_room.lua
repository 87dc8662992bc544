-- leave_room: take a customer out of the waiting room.
--
-- KEYS  1 room  2 room meta  3 left
-- ARGV  1 ticket hash
-- RETURNS 1 if he was in the room
--
-- A number stays his, below zero in `room`, so that he gets no other one by joining again. Numbers of those who left
-- are kept in `left`, so that the keeper lets others in for them.

local room, meta, left = KEYS[1], KEYS[2], KEYS[3]
local hash = ARGV[1]

local LEFT = 'left' -- left after the list was closed and before the draw

local current = redis.call('HGET', room, hash)
local number = tonumber(current or -1) or -1
if number < 0 then return 0 end
if number > 0 then
  redis.call('HSET', room, hash, -number)
  redis.call('ZADD', left, number, number)
elseif redis.call('HGET', meta, 'stage') == 'closed' then
  redis.call('HSET', room, hash, LEFT)
else
  redis.call('HDEL', room, hash)
end
return 1
