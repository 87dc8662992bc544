-- close_room: close the list of a waiting room. Who joins from now on stands behind it.
--
-- KEYS  1 room  2 room meta
-- RETURNS the number of people on the list
--
-- A repeat changes nothing.

local room, meta = KEYS[1], KEYS[2]

if redis.call('HGET', meta, 'stage') == 'open' then
  local people = redis.call('HLEN', room)
  local last = math.max(tonumber(redis.call('HGET', meta, 'last') or 0), people)
  redis.call('HSET', meta, 'stage', 'closed', 'listed', people, 'last', last)
end
return tonumber(redis.call('HGET', meta, 'listed') or 0)
