#!lua flags=allow-oom
-- move: jobs changed as the caller worked out from the version it read, each all at once or, when the job has been
-- written since, not at all. Every change that is not in a hurry comes this way; the caller knows the state table.
--
-- ARGV[3..]  for each job: id, the version read, how many fields to set, those with their values, how many fields to
--            drop, those, how many stream entries to add, each of id, attempt, at_ms, events; 0, or 10 and the job
--            that delivers its end: id, queue, tenant, task, band, cost, input, options, keep, failed_keep; how many
--            elements of its account (see common.lua), and those; of a job with limits whose attempt ends, how many
--            limits, and what goes back into the bucket of each, else 0; what its tenant owes beyond its cost, ''
-- Returns    for each 1 (done) or 0 (it is not there, or has another version)
local reply = {0, 0, 0}
local place = 3
local changed = false

local function next_args(size)
    local taken = {}
    for i = 1, size do
        taken[i] = ARGV[place + i - 1]
    end
    place = place + size
    return taken
end

local function next_count()
    place = place + 1
    return tonumber(ARGV[place - 1])
end

-- Whether it ended.
local function reindex(id, key, head, old, session, waited, parked)
    local job = call('HMGET', key, 'state', 'run_at_ms', 'queue_deadline_ms', 'cancel_requested_at_ms')
    local state = job[1] or 'queued'
    local ticket = ticket_of(head.number, id)
    if state ~= old then
        leave(old, head, id, session)
        if parked then
            limiter().leave(parked, head, ticket)
        end
        enter(state, head, id, job[2])
        count(head.queue, head.tenant, old, -1)
        count(head.queue, head.tenant, state, 1)
        if state ~= 'queued' and state ~= 'scheduled' then
            local expires = settle(state, head, id, bytes_of(key, head))
            if expires then
                call('HSET', key, 'expires_at_ms', expires)
            end
        end
    elseif state == 'running' and session and job[4] then
        call('SADD', root .. 'asked:' .. session, id)
        hint('worker:' .. session)
    end
    local waits = state == 'queued' or state == 'scheduled'
    if waits and job[3] then
        call('ZADD', root .. 'late', job[3], ticket)
    elseif waited then
        call('ZREM', root .. 'late', ticket)
    end
    if waits and (job[2] or job[3]) then
        hint('upkeep')
    end
    return not waits and state ~= 'running'
end

-- Its attempt took so much more than its cost, or less: its tenant's tag moves (domain/rank.py).
local function correct(head, owed)
    local queue, tenant, band = string.match(head, '^(%S+) (%S+) %S+ (%S+)')
    local line, tag = root .. 'queue:' .. queue, 'f' .. band .. ' ' .. tenant
    local found = call('HMGET', line, 'weights', 'v' .. band, tag)
    local weight = found[1] and cjson.decode(found[1])[tenant] or 1
    call('HSET', line, tag, text(math.max(tonumber(found[2]) or 0, tonumber(found[3]) or 0) + owed / weight))
end

while place <= #ARGV do
    local id, version = unpack(next_args(2))
    local set, drop = next_args(next_count()), next_args(next_count())
    local entries = {}
    for i = 1, next_count() do
        entries[i] = next_args(4)
    end
    local delivery, told, given = next_args(next_count()), next_args(next_count()), next_args(next_count())
    local owed = next_args(1)[1]
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'head', 'version', 'state', 'session', 'queue_deadline_ms', 'parked', 'limits')
    local done = job[1] and (job[2] or '1') == version
    if done then
        if #set > 0 then
            call('HSET', key, unpack(set))
        end
        if #drop > 0 then
            call('HDEL', key, unpack(drop))
        end
        for _, entry in ipairs(entries) do
            call('XADD', root .. 'log:' .. id, entry[1], 'a', entry[2], 't', entry[3], 'e', entry[4])
        end
        local ended = reindex(id, key, parse_head(job[1]), job[3] or 'queued', job[4], job[5], job[6])
        if given[1] then
            limiter().finish(limiter().parse(job[7] or ''), given)
        end
        if owed ~= '' then
            correct(job[1], owed)
        end
        if delivery[1] then
            deliver(unpack(delivery))
        end
        if told[1] then
            note_usage(job[1], told, ended)
        end
        if ended then
            hint_end(id)
        else
            hint_job(id)
        end
        changed = true
    end
    reply[#reply + 1] = done and 1 or 0
end
if not changed then
    return reply_of_read(reply)
end
if limiting then
    limiter().settle()
end
save_settled()
save_counts()
save_usage()
hint_lifecycle()
return reply_of_write(reply)
