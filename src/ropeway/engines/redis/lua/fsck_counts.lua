#!lua flags=allow-oom
-- fsck: a queue's count of queued jobs beside its line, of one moment; and counts put right by what they are wrong by,
-- which stays the same however the jobs move meanwhile.
--
-- ARGV[3]  a queue, '' for the bytes kept   ARGV[4..] fields, each with the step to add
-- Returns  the count of queued jobs, and how many are in line
local queue = ARGV[3]
local key = queue == '' and root .. 'meta' or root .. 'queue:' .. queue
for i = 4, #ARGV, 2 do
    call('HINCRBY', key, ARGV[i], ARGV[i + 1])
end
local reply = {0, 0, 0, tonumber(call('HGET', key, '/queued')) or 0, call('ZCARD', root .. 'ready:' .. queue)}
if #ARGV > 3 then
    return reply_of_write(reply)
end
return reply_of_read(reply)
