-- find_used_keys: tell which idempotency keys have an order in a sale.
--
-- KEYS  1 the sale's idempotency keys of tomorrow  2 of today  3 of yesterday
-- ARGV  1 number of fields, then the fields of these hashes
-- RETURNS the positions of the fields that one of the days has, from 0
--
-- A day without orders is not looked at, and only what is used goes back: almost always nothing.

local tomorrow, today, yesterday = KEYS[1], KEYS[2], KEYS[3]
local count = tonumber(ARGV[1])

-- include: chunks

local FIRST_FIELD = 2 -- position in ARGV

local used = {}
for _, day in ipairs({tomorrow, today, yesterday}) do
  if redis.call('EXISTS', day) == 1 then
    for from, to in chunks(FIRST_FIELD, count + 1) do
      local records = redis.call('HMGET', day, unpack(ARGV, from, to))
      for i = from, to do
        if records[i - from + 1] then used[#used + 1] = i - FIRST_FIELD end
      end
    end
  end
end
return used
