#!lua flags=allow-oom
-- fsck: members of an index held against what they stand for, all of one moment.
--
-- ARGV[3]  '1' to put right what can be   ARGV[4] the index: ready, parked, due, late, ended, failed, held, asked, all,
--          claims, sessions, queues, limits, calls or idle   ARGV[5] its queue, limit, tenant or session, ''
-- ARGV[6..] members (of all: entry id and job id, a space between)
-- Returns  for each {} when all is well or it has left since, else what is wrong, and 1 (put right) or 0 (it can be)
local repair = ARGV[3] == '1'
local index, name = ARGV[4], ARGV[5]
local key = root .. index .. (name == '' and '' or ':' .. name)
local changed = false
local ended = {succeeded = true, failed = true, cancelled = true}

local function is_in(member)
    if index == 'held' or index == 'asked' or index == 'queues' then
        return call('SISMEMBER', key, member) == 1
    elseif index == 'limits' then
        return call('HEXISTS', key, member) == 1
    elseif index == 'all' then
        local entry = string.match(member, '^%S+')
        return call('XRANGE', key, entry, entry)[1] ~= nil
    end
    return call('ZSCORE', key, member)
end

local function drop(member)
    if index == 'held' or index == 'asked' then
        call('SREM', key, member)
    elseif index == 'all' then
        call('XDEL', key, string.match(member, '^%S+'))
        if call('XLEN', key) == 0 then
            call('DEL', key)
        end
    else
        call('ZREM', key, member)
    end
end

local function belongs(job, state, head)
    if index == 'ready' then
        return state == 'queued' and head.queue == name and not job[7]
    elseif index == 'parked' then
        return state == 'queued' and job[7] == name
    elseif index == 'due' then
        return state == 'scheduled'
    elseif index == 'late' then
        return (state == 'queued' or state == 'scheduled') and job[4]
    elseif index == 'ended' then
        return ended[state] and job[5]
    elseif index == 'failed' then
        return state == 'failed' and head.tenant == name
    elseif index == 'held' then
        return state == 'running' and job[3] == name
    elseif index == 'asked' then
        return state == 'running' and job[3] == name and job[6]
    end
    return head.tenant == name -- all
end

-- Whether the member is written as that job's would be: a ticket has its number, an entry of the list too.
local function is_its_own(member, id, head)
    if index == 'held' or index == 'asked' then
        return true
    elseif index == 'all' then
        return string.match(member, '^%S+') == integer(head.number) .. '-0'
    end
    return member == ticket_of(head.number, id)
end

local function fault_of_job(member)
    local id = member
    if index == 'all' then
        id = string.match(member, ' (.*)$') or ''
    elseif index ~= 'held' and index ~= 'asked' then
        id = string.sub(member, 14)
    end
    if call('TYPE', root .. 'job:' .. id).ok ~= 'hash' then
        return 'there is no job ' .. id
    end
    local job = call('HMGET', root .. 'job:' .. id, 'head', 'state', 'session', 'queue_deadline_ms', 'expires_at_ms',
        'cancel_requested_at_ms', 'parked')
    local state, head = job[2] or 'queued', parse_head(job[1] or '')
    if not head.number then
        return nil -- told when that job is looked at
    end
    if not is_its_own(member, id, head) then
        return member .. ' is no entry of job ' .. id
    end
    if not belongs(job, state, head) then
        return 'job ' .. id .. ' is ' .. state .. ' and does not belong there'
    end
end

local function is_parked_under(limit)
    return call('EXISTS', root .. 'parked:' .. limit) == 1
end

local function is_idle(limit)
    local row = call('HGET', root .. 'limits', limit)
    return row and string.match(row, '^0 %S+ %S+ %S+ %-$') and not is_parked_under(limit)
end

local function fault_of_limit(limit)
    if index == 'calls' then
        return not is_parked_under(limit) and 'nothing is parked under ' .. limit
    elseif index == 'idle' then
        return not is_idle(limit) and 'limit ' .. limit .. ' is not idle'
    elseif not string.match(call('HGET', key, limit), '^%d+ %S+ %d+ %d+ %S+$') then
        return 'what is known of ' .. limit .. ' cannot be read'
    end
    return is_idle(limit) and not call('ZSCORE', root .. 'idle', limit) and limit .. ' is idle: nothing would ever end it'
end

local function look_at(member)
    if index == 'limits' or index == 'calls' or index == 'idle' then
        return fault_of_limit(member)
    elseif index == 'claims' then
        if call('EXISTS', root .. 'claim:' .. member) == 0 then
            return 'there is no claim of ' .. member
        end
    elseif index == 'sessions' then
        local lives = tonumber(call('ZSCORE', key, member)) > now
        if lives and call('HEXISTS', root .. 'session:' .. member, 'number') == 0 then
            return 'nothing is known of session ' .. member
        end
    elseif index == 'queues' then
        if call('HEXISTS', root .. 'queue:' .. member, 'max_depth') == 0 then
            return 'queue ' .. member .. ' has no policy'
        end
    else
        return fault_of_job(member)
    end
end

local function mend(member)
    if index == 'sessions' then
        call('HSETNX', root .. 'session:' .. member, 'started_at_ms', integer(now))
        call('HSETNX', root .. 'session:' .. member, 'number', call('HINCRBY', root .. 'meta', 'session', 1))
    elseif index == 'queues' then
        call('HSETNX', root .. 'queue:' .. member, 'max_depth', 1000000)
    elseif index == 'limits' then
        if not string.match(call('HGET', key, member), '^%d+ %S+ %d+ %d+ %S+$') then
            call('HSET', key, member, '0 - 0 0 -')
        end
        if is_idle(member) then
            call('ZADD', root .. 'idle', integer(now), member)
        end
    else
        drop(member)
    end
    changed = true
end

local reply = {0, 0, 0}
for i = 6, #ARGV do
    local what = is_in(ARGV[i]) and look_at(ARGV[i])
    if what and repair then
        mend(ARGV[i])
    end
    reply[#reply + 1] = what and {what, repair and 1 or 0} or {}
end
if changed then
    return reply_of_write(reply)
end
return reply_of_read(reply)
