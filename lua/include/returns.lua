-- returns: the hash that takes units that are returned to a sale.

-- Return the hash that takes them: while the sale has a wait-list it holds them back for those who wait.
local function choose_returned(meta, stock, held_back)
  return redis.call('HGET', meta, 'wait_list') == '1' and held_back or stock
end
