#!lua flags=allow-oom
-- fsck: a queue's count of jobs in line beside its line, of one moment; and counts put right by what they are wrong by,
-- which stays the same however the jobs move meanwhile.
--
-- ARGV[3]  a queue, '' for the bytes kept, a limit's key behind a space   ARGV[4..] fields, each with the step to add
-- Returns  the count of queued jobs that are not parked, and how many are in line
local queue = ARGV[3]
if string.sub(queue, 1, 1) == ' ' then
    limiter().correct(string.sub(queue, 2), tonumber(ARGV[5]))
    limiter().settle()
    save_counts()
    return reply_of_write({0, 0, 0, 0, 0})
end
local key = queue == '' and root .. 'meta' or root .. 'queue:' .. queue
for i = 4, #ARGV, 2 do
    call('HINCRBY', key, ARGV[i], ARGV[i + 1])
end
local kept = call('HMGET', key, '/queued', '/parked')
local reply = {0, 0, 0, (tonumber(kept[1]) or 0) - (tonumber(kept[2]) or 0), call('ZCARD', root .. 'ready:' .. queue)}
if #ARGV > 3 then
    return reply_of_write(reply)
end
return reply_of_read(reply)
