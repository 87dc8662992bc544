-- cut: read a sale's state at one moment, for the audit.
--
-- KEYS  1 meta  2 stock  3 orders  4 accepted  5 held back  6 offers
-- RETURNS {epoch or '', change_seq, last stream id, number of accepted orders, stock as sku, units, sku, units ...,
--          units held back likewise, offers as user NUL sku, units ...}

local meta, stock, orders, accepted, held_back, offers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- include: entry_ids

local load = redis.call('HMGET', meta, 'epoch', 'change_seq')
return {
  load[1] or '', tonumber(load[2] or 0), last_entry_id(orders), redis.call('HLEN', accepted),
  redis.call('HGETALL', stock), redis.call('HGETALL', held_back), redis.call('HGETALL', offers),
}
