#!lua flags=allow-oom
-- promote: scheduled -> queued, for those whose time has come. And when there is none: wake-ups that were lost.
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
local next_at = ''
for _, first in ipairs({
    call('ZRANGE', root .. 'due', 0, 0, 'WITHSCORES'),
    call('ZRANGE', root .. 'late', #late, #late, 'WITHSCORES'), -- the first that the caller is not told of
}) do
    if first[2] and (next_at == '' or tonumber(first[2]) < tonumber(next_at)) then
        next_at = first[2]
    end
end
local reply = {0, 0, 0, #due, late, next_at}

-- A token may be lost with a worker that took it, or on its way. It is missed for no longer than until the next promote.
local function wake_again()
    local woken = false
    for _, queue in ipairs(call('SMEMBERS', root .. 'queues')) do
        if call('EXISTS', root .. 'ready:' .. queue) == 1 and call('EXISTS', root .. 'wake:' .. queue) == 0
            and call('HGET', root .. 'queue:' .. queue, 'paused') ~= '1' then
            wake(queue)
            woken = true
        end
    end
    return woken
end

if #due == 0 then
    return wake_again() and reply_of_write(reply) or reply_of_read(reply)
end
save_counts()
hint_lifecycle()
return reply_of_write(reply)
