-- chunks: lists with more items than Lua passes to one command.

local CHUNK = 4000 -- below the size of Lua's C stack, which bounds unpack

local function next_chunk(last, from)
  from = from + CHUNK
  if from <= last then return from, math.min(from + CHUNK - 1, last) end
end

-- Iterate over the positions first to last; each step returns the first and last position of a chunk.
local function chunks(first, last)
  return next_chunk, last, first - CHUNK
end
