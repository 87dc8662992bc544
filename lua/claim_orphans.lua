-- claim_orphans: find entries that are neither pending nor new to a group, and make them pending with a consumer.
--
-- KEYS  1 orders
-- ARGV  1 consumer group  2 consumer, or '' to change nothing  3 idle ms that they get  4 look after this id, '' at first
--       5 max entries
-- RETURNS {id to look after in the next call, '' at the end, entries}
--
-- The group has read every entry up to its last delivered id, and acknowledged entries leave the stream. So what is in
-- the stream between two pending ids is an orphan: its consumer was deleted, or a failover lost that it was pending.
-- Only orphans are read from the stream: the payloads of pending entries are large.

local orders = KEYS[1]
local group, consumer, idle_ms, after, max_entries = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

-- include: group

local PAGE = 1000 -- pending ids per call

local last_delivered = last_delivered_id(orders, group)
if not last_delivered then return {'', {}} end

local orphans = {}
local start = after == '' and '-' or '(' .. after

-- Add the entries from `start` to an id. Returns false if they are too many.
local function add_orphans(to)
  local found = redis.call('XRANGE', orders, start, to, 'COUNT', max_entries - #orphans + 1)
  for _, entry in ipairs(found) do
    if #orphans == max_entries then return false end
    orphans[#orphans + 1] = entry
  end
  return true
end

local pending = redis.call('XPENDING', orders, group, start, last_delivered, PAGE)
local complete = true
for _, entry in ipairs(pending) do
  complete = add_orphans('(' .. entry[1])
  if not complete then break end
  after = entry[1]
  start = '(' .. after
end
if complete and #pending < PAGE then
  complete = add_orphans(last_delivered)
  if complete then after = '' end
end
if not complete then after = orphans[#orphans][1] end

if consumer ~= '' then
  for _, entry in ipairs(orphans) do
    redis.call('XCLAIM', orders, group, consumer, 0, entry[1], 'IDLE', idle_ms, 'FORCE', 'JUSTID')
  end
end
return {after, orphans}
