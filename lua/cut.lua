-- cut: what a sale holds at one moment, for the audit.
--
-- KEYS  1 meta  2 stock  3 orders  4 accepted
-- GIVES {epoch or '', change_seq, last stream id, number of accepted orders, stock as sku, units, sku, units ...}

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'change_seq')
local last = '0-0'
if redis.call('EXISTS', KEYS[3]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[3])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
return {
  meta[1] or '', tonumber(meta[2] or 0), last, redis.call('HLEN', KEYS[4]), redis.call('HGETALL', KEYS[2]),
}
