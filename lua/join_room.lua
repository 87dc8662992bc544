-- join_room: give each customer of a batch a place in the waiting room, the same one however often he joins.
--
-- KEYS  1 room  2 room meta
-- ARGV  1 maximum of people  2 expired (numbers up to this have had their turn), then of each: ticket hash, number of
--       the ticket that he shows, 0 for none
-- RETURNS per customer {outcome number, number}
-- OUTCOMES 0 placed {number}  1 listed {0: the places are not drawn yet}  2 full  3 not_ready
--
-- A number is kept until its turn is over; then joining again leads to the end of the queue. The number of a shown
-- ticket counts if Redis has lost the customer's place; the caller has verified the ticket.

local room, meta = KEYS[1], KEYS[2]
local max_people, expired = tonumber(ARGV[1]), tonumber(ARGV[2])

local PLACED, LISTED, FULL, NOT_READY = 0, 1, 2, 3
local LEFT = '-1' -- left after the list was closed and before the draw
local FIRST = 3

local stage = redis.call('HGET', meta, 'stage')
local results = {}

local function raise_last(number)
  if tonumber(redis.call('HGET', meta, 'last') or 0) < number then redis.call('HSET', meta, 'last', number) end
end

local function join(hash, shown)
  if not stage then return {NOT_READY, 0} end
  local current = redis.call('HGET', room, hash)
  local number = tonumber(current or -1)
  if number > expired then return {PLACED, number} end
  if stage ~= 'drawn' and number == 0 then return {LISTED, 0} end
  if stage == 'closed' and current == LEFT then
    redis.call('HSET', room, hash, 0)
    return {LISTED, 0}
  end
  if stage ~= 'open' and not current and shown > expired then
    redis.call('HSET', room, hash, shown)
    raise_last(shown)
    return {PLACED, shown}
  end
  if not current and redis.call('HLEN', room) >= max_people then return {FULL, 0} end
  if stage == 'open' then
    redis.call('HSET', room, hash, 0)
    return {LISTED, 0}
  end
  local last = redis.call('HINCRBY', meta, 'last', 1)
  redis.call('HSET', room, hash, last)
  return {PLACED, last}
end

for i = FIRST, #ARGV, 2 do results[#results + 1] = join(ARGV[i], tonumber(ARGV[i + 1])) end
return results
