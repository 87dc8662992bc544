-- changes: releases, reacquisitions and stock changes are applied once per id.
--
-- The changes key of a day keeps the seq of each change made on that day, by id. The day is that of the change, not of
-- the call: a repeat reads the very key that the first call wrote. The key expires after KEPT_DAYS. From then on a
-- repeat cannot be recognised, so the script answers too_old and moves no stock.

local KEPT_DAYS, DAY_S = 8, 86400

-- Return the server's time in seconds.
local function server_time_s()
  return tonumber(redis.call('TIME')[1])
end

-- Return the second at which the changes key of a day expires.
local function changes_expiry_s(day)
  return (tonumber(day) + KEPT_DAYS) * DAY_S
end

-- Keep the seq of a change under its id.
local function remember_change(changes, id, seq, expiry_s)
  redis.call('HSET', changes, id, seq)
  redis.call('EXPIREAT', changes, expiry_s)
end

-- Number a change within the load and keep it under its id. Returns its seq.
local function record_change(meta, changes, id, expiry_s)
  local seq = redis.call('HINCRBY', meta, 'change_seq', 1)
  remember_change(changes, id, seq, expiry_s)
  return seq
end
