-- place_room: give a part of a closed list its places, or put it back into a Redis that has lost it.
--
-- KEYS  1 room  2 left
-- ARGV  1 number of the first, 0 if the places are not drawn yet, then the ticket hashes
-- RETURNS the number of hashes that got a place
--
-- Nobody who has a number gets another one. A repeat changes nothing.

local room, left = KEYS[1], KEYS[2]
local first = tonumber(ARGV[1])

local LEFT = 'left' -- left after the list was closed and before the draw
local FIRST_HASH = 2

local placed = 0
for i = FIRST_HASH, #ARGV do
  local hash, number = ARGV[i], first > 0 and first + i - FIRST_HASH or 0
  local current = redis.call('HGET', room, hash)
  if current == LEFT and number > 0 then
    redis.call('ZADD', left, number, number)
    redis.call('HSET', room, hash, -number)
  elseif not current or (current == '0' and number > 0) then
    redis.call('HSET', room, hash, number)
    placed = placed + 1
  end
end
return placed
