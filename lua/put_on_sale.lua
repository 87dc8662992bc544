-- put_on_sale: move units of one SKU that are held back, and for which nobody waits, into the stock.
--
-- KEYS  1 meta  2 stock  3 held back
-- ARGV  1 epoch in which the number was read  2 sku  3 units
-- RETURNS the units that were moved: at most those that are held back, -1 if the sale is not loaded or loaded again

local meta, stock, held_back = KEYS[1], KEYS[2], KEYS[3]
local read_epoch, sku, units = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- include: server

if adopted_epoch(meta) ~= read_epoch then return -1 end
local held = tonumber(redis.call('HGET', held_back, sku) or 0)
local moved = math.min(units, held)
if moved <= 0 then return 0 end
if moved == held then
  redis.call('HDEL', held_back, sku)
else
  redis.call('HINCRBY', held_back, sku, -moved)
end
redis.call('HINCRBY', stock, sku, moved)
return moved
