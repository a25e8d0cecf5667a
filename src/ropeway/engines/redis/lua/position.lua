#!lua flags=no-writes
-- position: how many queued jobs go before one.
--
-- ARGV[3]  tenant   ARGV[4] id
-- Returns  its place in line from 0, or -1
local job = call('HMGET', root .. 'job:' .. ARGV[4], 'head', 'state')
local head = job[1] and parse_head(job[1])
local place
if head and head.tenant == ARGV[3] and (job[2] or 'queued') == 'queued' then
    place = call('ZRANK', root .. 'ready:' .. head.queue, ticket_of(head.number, ARGV[4]))
end
return reply_of_read({0, 0, 0, place or -1})
