-- stream: the state of a sale's stream.

-- Return the last id that an existing stream has assigned.
local function last_entry_id(stream)
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
