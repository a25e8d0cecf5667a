#!lua flags=no-writes
-- usage: what a tenant's attempts used, by day and task.
--
-- ARGV[3]  the tenant   ARGV[4], ARGV[5]  the first and the last day, counted from 1970
-- Returns  for each day that has an account two elements: the day, and {`<task> <name>`, amount, ...}; of the name ''
--          the amount is how many jobs
local reply = {0, 0, 0}
for day = tonumber(ARGV[4]), tonumber(ARGV[5]) do
    local found = call('HGETALL', root .. 'usage:' .. integer(day) .. ' ' .. ARGV[3])
    if #found > 0 then
        reply[#reply + 1] = integer(day)
        reply[#reply + 1] = found
    end
end
return reply_of_read(reply)
