-- stage_room: bring a waiting room to the stage that Postgres has.
--
-- KEYS  1 room meta
-- ARGV  1 stage (open, closed, drawn)  2 people on the closed list  3 last number given that is known  4 run id
-- RETURNS the last number given, -1 if this is not the process with the run id: some of the list may be missing here
--
-- A later stage stays, and the last number never falls.

local meta = KEYS[1]
local stage, listed, known_last, run_id = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- include: server

local ORDER = {open = 1, closed = 2, drawn = 3}

if not is_own_run_id(run_id) then return -1 end
local current = redis.call('HGET', meta, 'stage')
if not current or ORDER[current] < ORDER[stage] then
  redis.call('HSET', meta, 'stage', stage, 'listed', listed)
end
local last = math.max(tonumber(redis.call('HGET', meta, 'last') or 0), known_last)
redis.call('HSET', meta, 'last', last)
return last
