#!lua flags=no-writes
-- workers: the sessions.
--
-- Returns  for each five elements: number, card, when it started, its deadline, how many jobs it holds
local reply = {0, 0, 0}
local sessions = call('ZRANGE', root .. 'sessions', 0, -1, 'WITHSCORES')
for i = 1, #sessions, 2 do
    local known = call('HMGET', root .. 'session:' .. sessions[i], 'number', 'card', 'started_at_ms')
    if known[2] then
        reply[#reply + 1] = known[1]
        reply[#reply + 1] = known[2]
        reply[#reply + 1] = known[3]
        reply[#reply + 1] = sessions[i + 1]
        reply[#reply + 1] = call('SCARD', root .. 'held:' .. sessions[i])
    end
end
return reply_of_read(reply)
