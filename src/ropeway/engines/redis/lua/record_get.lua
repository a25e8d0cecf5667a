#!lua flags=no-writes
-- fetch: records as they stand.
--
-- ARGV[3..] for each: kind and tenant (a space between), id
-- Returns   for each its row (see record_put.lua), '' for one that is not there or has expired
local reply = {0, 0, 0}
for i = 3, #ARGV, 2 do
    local row = call('HGET', root .. 'rec:' .. ARGV[i], ARGV[i + 1])
    local expires = row and string.match(row, '^%d+ %d+ (%S+) ')
    reply[#reply + 1] = row and (expires == '-' or tonumber(expires) > now) and row or ''
end
return reply_of_read(reply)
