#!lua flags=allow-oom
-- lease: queued -> running, attempt + 1. The best-ranked jobs of some queues, the first queue first; who does not fit its
-- limits is parked.
--
-- ARGV[3]  session   ARGV[4] worker   ARGV[5] at most so many jobs   ARGV[6] random part of the tokens   ARGV[7..] queues
-- Returns  the ids of jobs met past their queue deadline (left where they are: the caller fails them), then for each
--          leased job seven elements: id, head, input, options, epoch, token, `attempt crashes runs` ('' the first
--          time)
--          The repeat of a call (the same random part) is answered as the first was: its reply was lost.
local session, worker, limit, random = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local FLOOR, PARKED_AT_ONCE = 10, 256 -- domain/rank.py, domain/limit.py
local reply = {0, 0, 0, {}}
local any_parked = false

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

-- Whether the job, which is out of its line, may start: else it is parked. Its id and head.
local function assign(ticket, rank, number_of_lease)
    local id = string.sub(ticket, 14)
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'head', 'input', 'options', 'version', 'limits')
    if job[5] and not limiter().admit(job[5], rank, ticket, job[1], key, job[4] or 1) then
        return nil
    end
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

-- A job that was taken out of its line starts, or is parked. Whether it started.
local function start(taken, ticket, rank)
    local id, head = assign(ticket, rank, taken.number + #taken.ids)
    if not id then
        taken.parked = taken.parked + 1
        return false
    end
    taken.ids[#taken.ids + 1] = id
    rank = tonumber(rank)
    local band = math.floor(rank / 1e12)
    taken.tops[band] = math.max(taken.tops[band] or 0, rank % 1e12)
    local tenant = string.match(head, '^%S+ (%S+)')
    taken.tenants[tenant] = (taken.tenants[tenant] or 0) + 1
    return true
end

-- Jobs of a line in which one band waits, and no deadline is to be looked at: in their order. False when more bands wait.
local function take_all(ready, wanted, taken)
    local last
    repeat
        local best = call('ZPOPMIN', ready, math.min(wanted - #taken.ids, PARKED_AT_ONCE - taken.parked))
        last = call('ZRANGE', ready, -1, -1, 'WITHSCORES')
        local lowest = last[2] or best[#best]
        if lowest and math.floor(best[2] / 1e12) ~= math.floor(lowest / 1e12) then
            for i = 1, #best, 2 do
                call('ZADD', ready, best[i + 1], best[i])
            end
            return false
        end
        for i = 1, #best, 2 do
            start(taken, best[i], best[i + 1])
        end
    until not last[1] or #taken.ids == wanted or taken.parked == PARKED_AT_ONCE
    taken.left = last[1]
    return true
end

-- Jobs of a line by their bands' turns (domain/rank.py): each band behind the first that was passed over nine times is owed
-- the tenth. `known` tells how often the second and the third were.
local function take_by_turns(queue, ready, wanted, taken, known)
    local normal, low = string.match(known or '', '^(%S+) (%S+)$')
    local passed = {[1] = tonumber(normal), [2] = tonumber(low)}
    local bands, out, waits = {}, {}, {}

    -- The first of a band (0 is the highest) that was not looked at yet, and its rank. All leave the line at the end.
    local function first_of(band)
        local some = bands[band]
        if not some or (some.at > #some.found and some.more) then
            local from = some and some.from or 0
            local found = call('ZRANGEBYSCORE', ready, integer(band * 1e12), '(' .. integer((band + 1) * 1e12),
                'WITHSCORES', 'LIMIT', from, wanted + 1)
            some = {found = found, at = 1, from = from + #found / 2, more = #found > 2 * wanted}
            bands[band] = some
        end
        return some.found[some.at], some.found[some.at + 1]
    end

    local function look()
        waits = {}
        for band = 0, 2 do
            if first_of(band) then
                waits[#waits + 1] = band
            end
        end
    end

    local function next_turn()
        for i = 2, #waits do
            if (passed[waits[i]] or 0) >= FLOOR - 1 then
                return waits[i]
            end
        end
        return waits[1]
    end

    local function pass_over(leased)
        local over, highest = {}, math.min(waits[1] or leased, leased)
        for _, band in ipairs(waits) do
            if band ~= leased and band ~= highest then
                over[band] = (passed[band] or 0) + 1
            end
        end
        passed = over
    end

    look()
    while waits[1] and #taken.ids + #reply[4] < wanted and taken.parked < PARKED_AT_ONCE do
        local turn = next_turn()
        local ticket, rank = first_of(turn)
        bands[turn].at = bands[turn].at + 2
        look()
        if not any_deadlines or in_time(ticket) then
            out[#out + 1] = ticket
            if start(taken, ticket, rank) then
                pass_over(turn)
            end
        end
    end
    if #out > 0 then
        call('ZREM', ready, unpack(out))
    end
    taken.left = call('EXISTS', ready) == 1
    local words = (passed[1] or 0) .. ' ' .. (passed[2] or 0)
    if words == '0 0' and known then
        call('HDEL', root .. 'queue:' .. queue, 'passed')
    elseif words ~= (known or '0 0') then
        call('HSET', root .. 'queue:' .. queue, 'passed', words)
    end
end

-- How many were leased of a queue.
local function take(queue, wanted)
    if wanted < 1 then
        return 0
    end
    local line = call('HMGET', root .. 'queue:' .. queue, 'paused', 'v0', 'v1', 'v2', 'max_running', '/running', 'passed')
    if line[1] == '1' then
        return 0
    end
    local ready, room = root .. 'ready:' .. queue, nil
    local taken = {ids = {}, tops = {}, tenants = {}, number = limit - wanted, parked = 0}
    if line[5] then
        room = tonumber(line[5]) - (tonumber(line[6]) or 0)
        for _, counts in pairs(counted[queue] or {}) do -- the queue may be named twice
            room = room - (counts.running or 0)
        end
        room = math.max(room, 0)
        wanted = math.min(wanted, room)
    end
    if wanted > 0 and (any_deadlines or line[7] or not take_all(ready, wanted, taken)) then
        take_by_turns(queue, ready, wanted, taken, line[7])
    end
    if #taken.ids > 0 then
        call('SADD', root .. 'held:' .. session, unpack(taken.ids))
        for band, start in pairs(taken.tops) do
            if start > (tonumber(line[4 - band]) or 0) then
                call('HSET', root .. 'queue:' .. queue, 'v' .. integer(2 - band), text(start))
            end
        end
        for tenant, jobs in pairs(taken.tenants) do
            count(queue, tenant, 'queued', -jobs)
            count(queue, tenant, 'running', jobs)
        end
    end
    any_parked = any_parked or taken.parked > 0
    if taken.left and #taken.ids ~= room then
        wake(queue) -- the next worker, for what is left
    else
        call('DEL', root .. 'wake:' .. queue)
    end
    return #taken.ids
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
if leased == 0 and not any_parked then
    return reply_of_read(reply)
end
if limiting then
    limiter().settle()
end
if leased > 0 then
    call('HSET', root .. 'session:' .. session, 'lease', random)
    hint_lifecycle()
end
save_counts()
return reply_of_write(reply)
