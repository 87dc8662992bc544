-- group: what XINFO tells of the consumer group of a sale's stream.

-- Return a field of a reply of XINFO, which lists names and values in turn.
local function info_field(info, name)
  for i = 1, #info, 2 do
    if info[i] == name then return info[i + 1] end
  end
end

-- Return the id up to which a group has read a stream, nil if there is no such stream or group.
local function last_delivered_id(stream, group)
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info_field(info, 'name') == group then return info_field(info, 'last-delivered-id') end
  end
end
