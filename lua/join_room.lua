-- join_room: give each customer of a batch a place in the waiting room, the same one however often he joins.
--
-- KEYS  1 room  2 room meta  3 left
-- ARGV  1 maximum of people  2 expired (numbers up to this have had their turn), then of each: ticket hash, number of
--       the ticket that he shows, 0 for none
-- RETURNS per customer {outcome number, number}
-- OUTCOMES 0 placed {number}  1 listed {0: the places are not drawn yet}  2 full  3 not_ready
--
-- A number is kept until its turn is over, also by who has left; then joining again leads to the end of the queue. The
-- number of a shown ticket counts if Redis has lost the customer's place; the caller has verified the ticket. Once the
-- places are drawn, only numbers whose turn is not over count towards the maximum.

local room, meta, left = KEYS[1], KEYS[2], KEYS[3]
local max_people, expired = tonumber(ARGV[1]), tonumber(ARGV[2])

local PLACED, LISTED, FULL, NOT_READY = 0, 1, 2, 3
local LEFT = 'left' -- left after the list was closed and before the draw
local FIRST = 3

local stage = redis.call('HGET', meta, 'stage')
local results = {}

local function read_last() return tonumber(redis.call('HGET', meta, 'last') or 0) end

local function is_full()
  if stage == 'drawn' then return read_last() - expired >= max_people end
  return redis.call('HLEN', room) >= max_people
end

-- Return the number that a customer has, 0 for none. One below zero in Redis is that of a customer who left.
local function find_number(stored, shown)
  local number = math.abs(stored)
  if number > expired then return number end
  return stage ~= 'open' and shown > expired and shown or 0
end

local function join(hash, shown)
  if not stage then return {NOT_READY, 0} end
  local current = redis.call('HGET', room, hash)
  if stage ~= 'drawn' and (current == '0' or current == LEFT) then
    if current == LEFT then redis.call('HSET', room, hash, 0) end
    return {LISTED, 0}
  end
  local stored = tonumber(current or 0) or 0
  local number = find_number(stored, shown)
  if number > 0 then
    if number ~= stored then
      redis.call('HSET', room, hash, number)
      redis.call('ZREM', left, number)
      if read_last() < number then redis.call('HSET', meta, 'last', number) end
    end
    return {PLACED, number}
  end
  if is_full() then return {FULL, 0} end
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
