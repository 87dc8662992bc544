-- acknowledge: remove stream entries whose orders are all in Postgres or dead-lettered.
--
-- KEYS  1 orders  2 accepted
-- ARGV  1 consumer group  2 number of entries, then their ids, then the ids of their orders
-- RETURNS the number of entries that were still there

local orders, accepted = KEYS[1], KEYS[2]
local group, entry_count = ARGV[1], tonumber(ARGV[2])

-- include: chunks

local FIRST_ENTRY = 3 -- position in ARGV
local last_entry = FIRST_ENTRY + entry_count - 1

for from, to in chunks(last_entry + 1, #ARGV) do redis.call('HDEL', accepted, unpack(ARGV, from, to)) end
for from, to in chunks(FIRST_ENTRY, last_entry) do redis.call('XACK', orders, group, unpack(ARGV, from, to)) end
local removed = 0
for from, to in chunks(FIRST_ENTRY, last_entry) do
  removed = removed + redis.call('XDEL', orders, unpack(ARGV, from, to))
end
return removed
