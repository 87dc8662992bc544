-- stage_room: set the stage of a waiting room, as Postgres has it.
--
-- KEYS  1 room meta
-- ARGV  1 stage (open, closed, drawn)  2 people on the closed list  3 last number given that is known
-- RETURNS the last number given
--
-- The last number never falls.

local meta = KEYS[1]
local stage, listed, known_last = ARGV[1], ARGV[2], tonumber(ARGV[3])

local last = math.max(tonumber(redis.call('HGET', meta, 'last') or 0), known_last)
redis.call('HSET', meta, 'stage', stage, 'listed', listed, 'last', last)
return last
