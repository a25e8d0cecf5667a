#!lua flags=allow-oom
-- lease: queued -> running, attempt + 1. The best-ranked jobs of some queues, the first queue first.
--
-- ARGV[3]  session   ARGV[4] worker   ARGV[5] at most so many jobs   ARGV[6] random part of the tokens   ARGV[7..] queues
-- Returns  the ids of jobs met past their queue deadline (left where they are: the caller fails them), then for each
--          leased job seven elements: id, head, input, options, epoch, token, `attempt crashes runs` ('' the first
--          time)
--          The repeat of a call (the same random part) is answered as the first was: its reply was lost.
local session, worker, limit, random = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local reply = {0, 0, 0, {}}

local any_deadlines = call('EXISTS', root .. 'late') == 1

local function tell(id, fields)
    reply[#reply + 1] = id
    for i = 1, 6 do
        reply[#reply + 1] = fields[i]
    end
end

local function repeated()
    local held = call('SMEMBERS', root .. 'held:' .. session)
    table.sort(held)
    for _, id in ipairs(held) do
        local job = call('HMGET', root .. 'job:' .. id, 'token', 'head', 'input', 'options', 'epoch', 'attempt',
            'crashes', 'runs')
        if job[1] and string.sub(job[1], 1, #random) == random then
            tell(id, {job[2], job[3], job[4] or '', job[5], job[1], job[6] .. ' ' .. (job[7] or '0') .. ' ' .. job[8]})
        end
    end
end

local function assign(ticket, number_of_lease)
    local id = string.sub(ticket, 14)
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'head', 'input', 'options', 'version')
    local token = random .. number_of_lease
    local epoch, attempt, crashes, runs = now_text, 1, 0, 1
    if job[4] then -- it was written since its submit, so this may not be its first attempt
        local past = call('HMGET', key, 'epoch', 'attempt', 'crashes', 'runs')
        epoch = integer(math.max((tonumber(past[1]) or 0) + 1, now))
        attempt, crashes, runs = (tonumber(past[2]) or 0) + 1, past[3] or 0, (tonumber(past[4]) or 0) + 1
        call('HDEL', key, 'progress', 'last_outcome')
    end
    if any_deadlines then
        call('ZREM', root .. 'late', ticket)
        call('HDEL', key, 'queue_deadline_ms')
    end
    call('HSET', key, 'state', 'running', 'version', (job[4] or 1) + 1, 'attempt', attempt, 'runs', runs, 'epoch', epoch,
        'seq', runs == 1 and 1 or 2, 'started_epoch', epoch, 'started_at_ms', now_text, 'worker', worker,
        'session', session, 'token', token)
    hint_job(id)
    local size = #reply
    reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4] = id, job[1], job[2], job[3] or ''
    reply[size + 5], reply[size + 6], reply[size + 7] = epoch, token, runs == 1 and '' or attempt .. ' ' .. crashes .. ' ' .. runs
    return id, job[1]
end

-- Whether the job may start; one that waited too long is told to the caller.
local function in_time(ticket)
    local deadline = call('ZSCORE', root .. 'late', ticket)
    if deadline and tonumber(deadline) <= now then
        reply[4][#reply[4] + 1] = string.sub(ticket, 14)
        return false
    end
    return true
end

local function take(queue, wanted)
    if wanted < 1 then
        return 0
    end
    local line = call('HMGET', root .. 'queue:' .. queue, 'paused', 'v0', 'v1', 'v2')
    if line[1] == '1' then
        return 0
    end
    local ready = root .. 'ready:' .. queue
    local best
    if any_deadlines then
        best = call('ZRANGE', ready, 0, wanted - 1, 'WITHSCORES')
    else
        best = call('ZPOPMIN', ready, wanted)
    end
    local taken, ids, tops, tenants = {}, {}, {}, {}
    for i = 1, #best, 2 do
        if not any_deadlines or in_time(best[i]) then
            local id, head = assign(best[i], (limit - wanted) + #taken)
            taken[#taken + 1] = best[i]
            ids[#ids + 1] = id
            local rank = tonumber(best[i + 1])
            tops[math.floor(rank / 1e12)] = rank % 1e12
            local tenant = string.match(head, '^%S+ (%S+)')
            tenants[tenant] = (tenants[tenant] or 0) + 1
        end
    end
    if #taken > 0 then
        if any_deadlines then
            call('ZREM', ready, unpack(taken))
        end
        call('SADD', root .. 'held:' .. session, unpack(ids))
        for band, start in pairs(tops) do
            if start > (tonumber(line[4 - band]) or 0) then
                call('HSET', root .. 'queue:' .. queue, 'v' .. integer(2 - band), text(start))
            end
        end
        for tenant, jobs in pairs(tenants) do
            count(queue, tenant, 'queued', -jobs)
            count(queue, tenant, 'running', jobs)
        end
    end
    if call('EXISTS', ready) == 1 then
        wake(queue) -- the next worker, for what is left
    else
        call('DEL', root .. 'wake:' .. queue)
    end
    return #taken
end

local deadline = call('ZSCORE', root .. 'sessions', session)
if not deadline or tonumber(deadline) <= now then
    return reply_of_read(reply)
end
if call('HGET', root .. 'session:' .. session, 'lease') == random then
    repeated()
    return reply_of_read(reply)
end
local leased = 0
for i = 7, #ARGV do
    leased = leased + take(ARGV[i], limit - leased)
    if #reply[4] > 0 then
        break -- there may be more in this queue, which goes before the next: the caller asks again
    end
end
if leased == 0 then
    return reply_of_read(reply)
end
call('HSET', root .. 'session:' .. session, 'lease', random)
save_counts()
hint_lifecycle()
return reply_of_write(reply)
