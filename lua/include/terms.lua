-- terms: what the terms of a sale say to every order that is not a replay.
--
-- NOT_OPEN, PAUSED and CLOSED are the outcomes of the script that includes it.

-- Return the outcome of all orders at a moment, false if the sale takes orders. `terms` are state, opens_ms, closes_ms.
local function refusal_by_terms(terms, now_ms)
  if terms[1] == 'closed' or (terms[3] ~= '' and now_ms >= tonumber(terms[3])) then
    return CLOSED
  elseif terms[1] == 'paused' then
    return PAUSED
  elseif now_ms < tonumber(terms[2]) then
    return {NOT_OPEN, tonumber(terms[2])}
  end
  return false
end
