-- Script of wrk: orders of many users, each under its own key; without arguments, plain GETs of the URL.
--
--   wrk -s load.lua URL [-- USERS_FILE ORDER_FILE SKUS RUN [PAUSE_MS]]
--
-- USERS_FILE has a header line per user. ORDER_FILE is an order in which @ is replaced by the number of the SKU, from 0
-- to SKUS - 1. RUN makes the keys of this run unique. PAUSE_MS is the mean pause of a connection before each request.
-- The last line of the output is the result as JSON, in seconds.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set('number', threads)
end

function init(args)
  if #args == 0 then
    local get = wrk.format('GET')
    request = function() return get end
    return
  end
  local heads, sent, skus = {}, 0, tonumber(args[3])
  for header in io.lines(args[1]) do
    heads[#heads + 1] = 'POST ' .. wrk.path .. ' HTTP/1.1\r\nHost: 127.0.0.1\r\n' ..
      'Content-Type: application/json\r\n' .. header .. '\r\nIdempotency-Key: ' .. args[4] .. '-' .. number .. '-'
  end
  -- Each body is built again: with a table of 100,000 bodies wrk hung sometimes, for an unknown reason.
  local before, after = string.match(assert(io.open(args[2], 'rb')):read('*a'), '^(.-)@(.*)$')
  request = function()
    sent = sent + 1
    local sku = tostring(sent % skus)
    return heads[sent % #heads + 1] .. sent .. '\r\nContent-Length: ' .. (#before + #sku + #after) .. '\r\n\r\n' ..
      before .. sku .. after
  end
  local pause = tonumber(args[5] or 0)
  if pause > 0 then
    delay = function() return math.floor(-math.log(1 - math.random()) * pause + 0.5) end
  end
end

dofile(debug.getinfo(1, 'S').source:match('^@(.*/)') .. 'result.lua')
