#!lua flags=allow-oom
-- promote: scheduled -> queued, for those whose time has come; parked jobs that fit their limit by now go back into line.
-- And when there are none: wake-ups that were lost.
--
-- ARGV[3]  at most so many
-- Returns  how many were queued, the ids of those that wait past their queue deadline (the caller fails them), and the
--          time of the next that waits for one, which is past when there are more than the limit; '' when none does
local limit = tonumber(ARGV[3])
local due = call('ZRANGEBYSCORE', root .. 'due', '-inf', now_text, 'LIMIT', 0, limit)
for _, ticket in ipairs(due) do
    local id = string.sub(ticket, 14)
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'head', 'version')
    local head = parse_head(job[1])
    leave('scheduled', head, id)
    enter('queued', head, id)
    call('HSET', key, 'state', 'queued', 'version', (tonumber(job[2]) or 1) + 1)
    call('HDEL', key, 'run_at_ms')
    count(head.queue, head.tenant, 'scheduled', -1)
    count(head.queue, head.tenant, 'queued', 1)
    hint_job(id)
end
local late = {}
for _, ticket in ipairs(call('ZRANGEBYSCORE', root .. 'late', '-inf', now_text, 'LIMIT', 0, limit - #due)) do
    late[#late + 1] = string.sub(ticket, 14)
end
local called = 0
local keys = call('ZRANGEBYSCORE', root .. 'calls', '-inf', now_text, 'LIMIT', 0, limit)
if #keys > 0 and #late == 0 then -- who is late is not called, but failed first: the caller comes again
    for _, key in ipairs(keys) do
        limiter().calls[key] = true
    end
    called = limiter().settle()
end
local next_at = ''
for _, first in ipairs({
    call('ZRANGE', root .. 'due', 0, 0, 'WITHSCORES'),
    call('ZRANGE', root .. 'late', #late, #late, 'WITHSCORES'), -- the first that the caller is not told of
    call('ZRANGE', root .. 'calls', 0, 0, 'WITHSCORES'),
}) do
    if first[2] and (next_at == '' or tonumber(first[2]) < tonumber(next_at)) then
        next_at = first[2]
    end
end
local reply = {0, 0, 0, #due + called, late, next_at}

local function is_open(queue)
    local line = call('HMGET', root .. 'queue:' .. queue, 'paused', 'max_running', '/running')
    return line[1] ~= '1' and (not line[2] or (tonumber(line[3]) or 0) < tonumber(line[2]))
end

-- A token may be lost with a worker that took it, or on its way. It is missed for no longer than until the next promote.
local function wake_again()
    local woken = false
    for _, queue in ipairs(call('SMEMBERS', root .. 'queues')) do
        if call('EXISTS', root .. 'ready:' .. queue) == 1 and call('EXISTS', root .. 'wake:' .. queue) == 0
            and is_open(queue) then
            wake(queue)
            woken = true
        end
    end
    return woken
end

if #due + called == 0 then
    return wake_again() and reply_of_write(reply) or reply_of_read(reply)
end
save_counts()
hint_lifecycle()
return reply_of_write(reply)
