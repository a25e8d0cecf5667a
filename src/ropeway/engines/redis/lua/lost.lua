#!lua flags=allow-oom
-- lost: what the expired sessions hold, or one that is being closed; those that hold nothing are forgotten.
--
-- ARGV[3]  a session, '' for all that are expired   ARGV[4] at most so many jobs
-- Returns  the ids of jobs whose attempts are to be ended
local found = {}
local sessions = {ARGV[3]}
if ARGV[3] == '' then
    sessions = call('ZRANGEBYSCORE', root .. 'sessions', '-inf', integer(now))
end
local limit = tonumber(ARGV[4])
for _, session in ipairs(sessions) do
    local held = call('SMEMBERS', root .. 'held:' .. session)
    if #held == 0 then
        call('ZREM', root .. 'sessions', session)
        call('DEL', root .. 'session:' .. session, root .. 'asked:' .. session)
    end
    table.sort(held)
    for _, id in ipairs(held) do
        if #found < limit then
            found[#found + 1] = id
        end
    end
end
return reply_of_write({0, 0, 0, found})
