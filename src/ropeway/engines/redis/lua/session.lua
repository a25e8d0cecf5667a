#!lua flags=allow-oom
-- announce, renew, close: a worker's session.
--
-- ARGV[3]  session   ARGV[4] ttl in ms, 0 to end it now   ARGV[5] its card, '' to change none (and open none)
-- Returns  1 when the session is there, and the ids of its jobs that were asked to stop
local session, ttl, card = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local key = root .. 'session:' .. session
local known = call('ZSCORE', root .. 'sessions', session)
if not known and card == '' then
    return reply_of_read({0, 0, 0, 0, {}})
end
if not known then
    call('HSET', key, 'started_at_ms', now_text, 'number', call('HINCRBY', root .. 'meta', 'session', 1))
end
if card ~= '' then
    call('HSET', key, 'card', card)
end
call('ZADD', root .. 'sessions', ttl == 0 and 0 or integer(now + ttl), session)
return reply_of_write({0, 0, 0, 1, call('SMEMBERS', root .. 'asked:' .. session)})
