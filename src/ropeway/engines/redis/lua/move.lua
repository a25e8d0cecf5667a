#!lua flags=allow-oom
-- move: jobs changed as the caller worked out from the version it read, each all at once or, when the job has been
-- written since, not at all. Every change that is not in a hurry comes this way; the caller knows the state table.
--
-- ARGV[3..]  for each job: id, the version read, how many fields to set, those with their values, how many fields to
--            drop, those, how many stream entries to add, each of id, attempt, at_ms, events; 0, or 10 and the job
--            that delivers its end: id, queue, tenant, task, band, cost, input, options, keep, failed_keep; how many
--            elements of its account (see common.lua), and those
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
local function reindex(id, key, head, old, session, waited)
    local job = call('HMGET', key, 'state', 'run_at_ms', 'queue_deadline_ms', 'claim')
    local state = job[1] or 'queued'
    local ticket = ticket_of(head.number, id)
    if state ~= old then
        leave(old, head, id, session)
        enter(state, head, id, job[2])
        count(head.queue, head.tenant, old, -1)
        count(head.queue, head.tenant, state, 1)
        if state ~= 'queued' and state ~= 'scheduled' then
            local expires = settle(state, head, id, bytes_of(key, head))
            if expires then
                call('HSET', key, 'expires_at_ms', expires)
            end
        end
    elseif state == 'running' and session then
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

while place <= #ARGV do
    local id, version = unpack(next_args(2))
    local set, drop = next_args(next_count()), next_args(next_count())
    local entries = {}
    for i = 1, next_count() do
        entries[i] = next_args(4)
    end
    local delivery, told = next_args(next_count()), next_args(next_count())
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'head', 'version', 'state', 'session', 'queue_deadline_ms')
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
        local ended = reindex(id, key, parse_head(job[1]), job[3] or 'queued', job[4], job[5])
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
save_settled()
save_counts()
save_usage()
hint_lifecycle()
return reply_of_write(reply)
