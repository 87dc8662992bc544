-- nginx + Lua: decode the order, send one EVALSHA over a pooled cosocket connection, answer.

local cjson = require 'cjson.safe'
local bit = require 'bit'

local POOL, QUEUE, TIMEOUT_MS, IDLE_MS, LIMIT = 64, 4096, 5000, 60000, 1000000
local reserve = cjson.decode(os.getenv('BENCH_RESERVE'))
local concat, char = table.concat, string.char

local function bulk(text)
  text = tostring(text)
  return '$' .. #text .. '\r\n' .. text .. '\r\n'
end

local function u32(n)
  return char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255), bit.band(bit.rshift(n, 8), 255),
    bit.band(n, 255))
end

local function hex(bytes)
  return (bytes:gsub('.', function(c) return string.format('%02x', c:byte()) end))
end

-- Equal in every command: EVALSHA, the script, its keys, the day, and counts of one order, SKU and user.
local ARGUMENTS = 3 + #reserve.keys + 4 + 7
local head = {'*' .. ARGUMENTS .. '\r\n', bulk('EVALSHA'), bulk(reserve.sha), bulk(#reserve.keys)}
for _, key in ipairs(reserve.keys) do head[#head + 1] = bulk(key) end
for _, number in ipairs({reserve.day, 1, 1, 1}) do head[#head + 1] = bulk(number) end
head = concat(head)
local lines_head = u32(0) .. u32(reserve.generation) .. u32(1) .. u32(1)
local lines_tail = u32(1) .. u32(LIMIT)
local nothing = string.rep('\0', 8)

local function fail(reason)
  ngx.log(ngx.ERR, reason)
  return ngx.exit(503)
end

-- Reads the outcome of {integer, bulk string, outcome}: an integer if accepted, an array otherwise.
local function read_outcome(socket)
  local line, reason = socket:receive('*l')
  if line ~= '*3' then return nil, reason or line end
  socket:receive('*l')
  local length = tonumber(string.sub(socket:receive('*l'), 2))
  socket:receive(length + 2)
  return socket:receive('*l')
end

local M = {}

function M.place()
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  local headers = ngx.req.get_headers()
  local user, key = headers['x-user'], headers['idempotency-key']
  local order = body and cjson.decode(body)
  local line = order and order.lines and order.lines[1]
  if not (user and key and line and line.sku and tonumber(line.quantity)) then return ngx.exit(422) end
  local id = ngx.md5_bin(user .. key)
  local socket = ngx.socket.tcp()
  socket:settimeout(TIMEOUT_MS)
  local ok, reason = socket:connect('unix:' .. reserve.redis, {pool_size = POOL, backlog = QUEUE})
  if not ok then return fail(reason) end
  ok, reason = socket:send({
    head, bulk(lines_head .. u32(line.quantity) .. lines_tail), bulk(id .. u32(#body) .. body), bulk(line.sku),
    bulk(user .. '\0' .. line.sku), bulk(user .. '\0' .. key), bulk(user), bulk(id .. ngx.md5_bin(body) .. nothing),
  })
  if not ok then return fail(reason) end
  local outcome, read_error = read_outcome(socket)
  if not outcome then return fail(read_error) end
  if outcome ~= ':0' then
    socket:close() -- the remainder of the refusal is not read
    return ngx.exit(409)
  end
  socket:setkeepalive(IDLE_MS, POOL)
  ngx.status = 202
  ngx.header['Content-Type'] = 'application/json'
  local reply = '{"order_id":"' .. hex(id) .. '","status":"accepted"}'
  ngx.header['Content-Length'] = #reply
  ngx.print(reply)
end

return M
