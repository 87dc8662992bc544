-- Script of wrk: GETs in turn, without anything computed for each.
--
--   wrk -s reads.lua URL -- FILE
--
-- FILE has a line per request: the path and, after a tab, a header or nothing. The last line of the output is the
-- result as JSON, in seconds.

function init(args)
  local requests, sent = {}, 0
  for line in io.lines(args[1]) do
    local path, header = string.match(line, '^(.-)\t(.*)$')
    requests[#requests + 1] = 'GET ' .. path .. ' HTTP/1.1\r\nHost: 127.0.0.1\r\n' ..
      (header == '' and '' or header .. '\r\n') .. '\r\n'
  end
  request = function()
    sent = sent + 1
    return requests[sent % #requests + 1]
  end
end

dofile(debug.getinfo(1, 'S').source:match('^@(.*/)') .. 'result.lua')
