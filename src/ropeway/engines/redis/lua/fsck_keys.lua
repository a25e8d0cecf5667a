#!lua flags=allow-oom
-- fsck: keys that must have an owner, each held against it, all of one moment.
--
-- ARGV[3]  '1' to put right what can be   ARGV[4..] for each key two elements: its kind (log, claim, session, queue, ready,
--          wake, parked, rec, bucket or usage) and its name
-- Returns  for each {} when all is well or it has gone since, else what is wrong, and 1 (put right), 0 (it can be) or -1 (it cannot)
local repair = ARGV[3] == '1'
local changed = false
local types = {log = 'stream', ready = 'zset', wake = 'zset', parked = 'zset'}

-- The claim of a content key has no time of its own: it goes with the job that took it.
local function look_at_content(name, id)
    local job = call('HMGET', root .. 'job:' .. id, 'head', 'cache')
    local took = job[1] and job[2] and parse_head(job[1]).tenant .. '  ' .. job[2]
    return took ~= name and 'job ' .. id .. ' did not take it, or is gone'
end

local function is_content(name)
    return string.find(name, '  ', 1, true)
end

local function look_at(kind, name)
    if kind == 'claim' and is_content(name) then
        return look_at_content(name, call('HGET', root .. 'claim:' .. name, 'job') or '')
    elseif kind == 'log' then
        return call('EXISTS', root .. 'job:' .. name) == 0 and 'there is no job ' .. name
    elseif kind == 'claim' then
        return not call('ZSCORE', root .. 'claims', name) and 'it is not in claims: nothing would ever end it'
    elseif kind == 'session' then
        return not call('ZSCORE', root .. 'sessions', name) and 'it is not in sessions: nothing would ever end it'
    elseif kind == 'usage' then
        return not call('ZSCORE', root .. 'usages', name) and 'it is not in usages: nothing would ever end it'
    elseif kind == 'parked' then
        local row = call('HGET', root .. 'limits', name)
        if not row then
            return 'nothing is known of limit ' .. name
        end
        local runs = string.match(row, '^[1-9]')
        return not runs and not call('ZSCORE', root .. 'calls', name) and 'nothing would ever call its jobs back'
    elseif kind == 'bucket' then
        return call('PTTL', root .. 'bucket:' .. name) == -1 and 'nothing would ever end it'
    elseif kind == 'rec' then
        local unlisted = call('HLEN', root .. 'rec:' .. name) - call('ZCARD', root .. 'ids:' .. name)
        return unlisted > 0 and unlisted .. ' of its records are not listed'
    end
    return call('SISMEMBER', root .. 'queues', name) == 0 and 'there is no queue ' .. name
end

local function mend(kind, name)
    local key = root .. kind .. ':' .. name
    if kind == 'claim' and not is_content(name) and call('HEXISTS', key, 'job') == 1 then
        call('ZADD', root .. 'claims', call('HGET', key, 'expires') or integer(now), name)
    elseif kind == 'session' and call('EXISTS', root .. 'held:' .. name) == 1 then
        call('ZADD', root .. 'sessions', 0, name) -- what it holds is rescued
    elseif kind == 'parked' then
        call('HSETNX', root .. 'limits', name, '0 - 0 0 -')
        call('ZADD', root .. 'calls', integer(now), name)
    elseif kind == 'usage' then
        call('ZADD', root .. 'usages', string.match(name, '^%d+') or 0, name)
    elseif kind == 'rec' then
        for _, id in ipairs(call('HKEYS', key)) do
            call('ZADD', root .. 'ids:' .. name, 0, id)
        end
    elseif kind == 'bucket' or kind == 'log' or kind == 'claim' or kind == 'session' or kind == 'wake' then
        call('UNLINK', key)
    else
        call('SADD', root .. 'queues', name)
        call('HSETNX', root .. 'queue:' .. name, 'max_depth', 1000000)
    end
    changed = true
end

local function look(kind, name)
    local type = call('TYPE', root .. kind .. ':' .. name).ok
    if type == 'none' then
        return {}
    elseif type ~= (types[kind] or 'hash') then
        return {'it is a ' .. type .. ' and should be a ' .. (types[kind] or 'hash'), -1}
    end
    local what = look_at(kind, name)
    if what and repair then
        mend(kind, name)
    end
    return what and {what, repair and 1 or 0} or {}
end

local reply = {0, 0, 0}
for i = 4, #ARGV, 2 do
    reply[#reply + 1] = look(ARGV[i], ARGV[i + 1])
end
if changed then
    return reply_of_write(reply)
end
return reply_of_read(reply)
