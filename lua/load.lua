-- load: make staged stock the stock of a sale, and open the way for orders.
--
-- KEYS  1 meta  2 stock  3 buyers  4 orders  5 staged stock  6 staged buyers
-- ARGV  1 epoch  2 generation  3 state  4 opens ms  5 closes ms or ''  6 consumer group  7 least stream id
-- GIVES the outcome number
-- OUTCOMES 0 loaded  1 loaded_before (by somebody else; the staged stock is dropped)
--
-- The stream's ids must go on rising after a wipe, since they say which order came before an audit's cut and which
-- after: the last id is raised to the least one the caller knows of.

local LOADED, LOADED_BEFORE = 0, 1

if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[5], KEYS[6])
  return LOADED_BEFORE
end
redis.call('DEL', KEYS[2], KEYS[3])
if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[2]) end
if redis.call('EXISTS', KEYS[6]) == 1 then redis.call('RENAME', KEYS[6], KEYS[3]) end

local made = redis.pcall('XGROUP', 'CREATE', KEYS[4], ARGV[6], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local info = redis.call('XINFO', 'STREAM', KEYS[4])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then
    local ms, seq = parts(info[i + 1])
    local least_ms, least_seq = parts(ARGV[7])
    if least_ms > ms or (least_ms == ms and least_seq > seq) then redis.call('XSETID', KEYS[4], ARGV[7]) end
  end
end

redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[2], 'state', ARGV[3], 'opens_ms', ARGV[4],
  'closes_ms', ARGV[5], 'change_seq', 0)
return LOADED
