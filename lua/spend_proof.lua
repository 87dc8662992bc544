-- spend_proof: remember the nonce of a solved challenge, so that every solution counts once.
--
-- KEYS  1 proofs
-- ARGV  1 nonce  2 when its challenge expires, ms since 1970  3 maximum of nonces
-- RETURNS {outcome number, nonces remembered}
-- OUTCOMES 0 spent  1 spent_before  2 full
--
-- Nonces whose challenge has expired, by the caller and by the server's clock, are forgotten, at most 100 per call.

local proofs = KEYS[1]
local nonce, expires_ms, max_nonces = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local SPENT, SPENT_BEFORE, FULL = 0, 1, 2
local MARGIN_MS = 60000 -- clocks differ: a gateway may still take a challenge that has expired here

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local expired = redis.call('ZRANGEBYSCORE', proofs, '-inf', now_ms - MARGIN_MS, 'LIMIT', 0, 100)
if #expired > 0 then redis.call('ZREM', proofs, unpack(expired)) end

local count = redis.call('ZCARD', proofs)
if redis.call('ZSCORE', proofs, nonce) then return {SPENT_BEFORE, count} end
if count >= max_nonces then return {FULL, count} end
redis.call('ZADD', proofs, expires_ms, nonce)
local lifetime_ms = math.max(expires_ms - now_ms, 0) + 2 * MARGIN_MS
if redis.call('PTTL', proofs) < lifetime_ms then redis.call('PEXPIRE', proofs, lifetime_ms) end
return {SPENT, count + 1}
