-- server: the Redis process that a sale was loaded or adopted on; meta keeps its run id.
--
-- A promoted replica and a restarted server have another run id. They may lack what others have seen, so nothing moves
-- there until adopt.lua has compared them with what is known.

-- Return the run id of this process.
local function own_run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Return whether a run id is that of this process.
local function is_own_run_id(run_id)
  return run_id and string.find(redis.call('INFO', 'server'), run_id, 1, true) ~= nil
end

-- Return the epoch of a sale, or nil if it is not loaded or not adopted here.
local function adopted_epoch(meta)
  local load = redis.call('HMGET', meta, 'epoch', 'run_id')
  if load[1] and is_own_run_id(load[2]) then return load[1] end
end
