#!lua flags=allow-oom
-- promote: scheduled -> queued, for those whose time has come.
--
-- ARGV[3]  at most so many
-- Returns  how many were queued, the ids of those that wait past their queue deadline (the caller fails them), and the
--          time of the next that waits for one, '' when none does
local limit = tonumber(ARGV[3])
local due = call('ZRANGEBYSCORE', root .. 'due', '-inf', integer(now), 'LIMIT', 0, limit)
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
    hint('queue:' .. head.queue)
end
local late = {}
for _, ticket in ipairs(call('ZRANGEBYSCORE', root .. 'late', '-inf', integer(now), 'LIMIT', 0, limit - #due)) do
    late[#late + 1] = string.sub(ticket, 14)
end
local next_at = ''
for _, index in ipairs({'due', 'late'}) do
    local first = call('ZRANGEBYSCORE', root .. index, '(' .. integer(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] and (next_at == '' or tonumber(first[2]) < tonumber(next_at)) then
        next_at = first[2]
    end
end
local reply = {0, 0, 0, #due, late, next_at}
if #due == 0 then
    return reply_of_read(reply)
end
save_counts()
hint('lifecycle')
return reply_of_write(reply)
