#!lua flags=allow-oom
-- fsck: each job's row held against the indexes that it belongs in, all of one moment.
--
-- ARGV[3]  '0' to look, '1' to put right what can be, '2' also what a tenant's list lacks (the oldest first)
-- ARGV[4..] ids
-- Returns  for each {state, queue, tenant, bytes kept under its retention, number, '1' when it is parked, the limits that it
--          runs under}, '' and no more for one that is not there; then for each fault three elements: kind, what is wrong, and 1 (put right), 0 (it can be) or -1 (it cannot)
local MOST = 128 -- entries of a list that is made anew
local repair = ARGV[3] ~= '0'
local changed = false
local states = {
    scheduled = 'waits', queued = 'waits', running = 'runs', succeeded = 'ended', failed = 'ended', cancelled = 'ended',
}
local names = {'head', 'state', 'session', 'token', 'run_at_ms', 'queue_deadline_ms', 'cancel_requested_at_ms',
    'expires_at_ms', 'epoch', 'seq', 'started_epoch', 'runs', 'parked', 'limits'}
local told

local function fault(kind, what, mend)
    local outcome = -1
    if mend and repair then
        mend()
        changed = true
        outcome = 1
    elseif mend then
        outcome = 0
    end
    told[#told + 1] = kind
    told[#told + 1] = what
    told[#told + 1] = outcome
end

local function look_in(index, ticket, wanted)
    local score = redis.pcall('ZSCORE', root .. index, ticket)
    if type(score) == 'table' then
        return -- of another type: told when that key is looked at
    end
    local function mend()
        call('ZADD', root .. index, wanted, ticket)
    end
    if not score then
        fault('missing', 'it is not in ' .. index, mend)
    elseif tonumber(score) ~= tonumber(wanted) then
        fault('misplaced', 'it is in ' .. index .. ' at ' .. score .. ' and not at ' .. wanted, mend)
    end
end

local is_known = {}

local function look_for_queue(queue)
    if is_known[queue] == nil then
        is_known[queue] = call('SISMEMBER', root .. 'queues', queue) == 1
    end
    if not is_known[queue] then
        fault('queue', 'its queue ' .. queue .. ' is not among the queues', function()
            is_known[queue] = true
            call('SADD', root .. 'queues', queue)
            call('HSETNX', root .. 'queue:' .. queue, 'max_depth', 1000000)
        end)
    end
end

-- A session that nobody renews any more: what it holds is rescued.
local function dead_session(session)
    call('ZADD', root .. 'sessions', 0, session)
    call('HSETNX', root .. 'session:' .. session, 'started_at_ms', integer(now))
    call('HSETNX', root .. 'session:' .. session, 'number', call('HINCRBY', root .. 'meta', 'session', 1))
end

local function look_for_session(id, key, row)
    local session = row.session
    if not session then
        fault('session', 'it runs under no session', function()
            call('HSET', key, 'session', 'fsck')
            call('SADD', root .. 'held:fsck', id)
            dead_session('fsck')
        end)
        return
    end
    if call('SISMEMBER', root .. 'held:' .. session, id) == 0 then
        fault('missing', 'it is not in held:' .. session, function()
            call('SADD', root .. 'held:' .. session, id)
        end)
    end
    if row.cancel_requested_at_ms and call('SISMEMBER', root .. 'asked:' .. session, id) == 0 then
        fault('missing', 'it is not in asked:' .. session, function()
            call('SADD', root .. 'asked:' .. session, id)
        end)
    end
    if not call('ZSCORE', root .. 'sessions', session) then
        fault('session', 'it runs under session ' .. session .. ', which is not there', function()
            dead_session(session)
        end)
    end
end

-- A list grows at its end alone: a short one is made anew, a long one keeps gaps that are further in.
local function add_to_list(all, entry, id)
    local entries = call('XRANGE', all, '-', '+', 'COUNT', MOST + 1)
    if #entries > MOST then
        call('XADD', all, entry, 'i', id)
        return
    end
    entries[#entries + 1] = {entry, {'i', id}}
    table.sort(entries, function(one, other)
        return tonumber(string.match(one[1], '^%d+')) < tonumber(string.match(other[1], '^%d+'))
    end)
    call('DEL', all)
    for _, each in ipairs(entries) do
        call('XADD', all, each[1], unpack(each[2]))
    end
end

local function can_add(all, number)
    if call('XLEN', all) <= MOST then
        return true
    end
    local about = call('XINFO', 'STREAM', all)
    for i = 1, #about, 2 do
        if about[i] == 'last-generated-id' then
            return tonumber(string.match(about[i + 1], '^%d+')) < number
        end
    end
end

local function look_in_all(id, head)
    local all, entry = root .. 'all:' .. head.tenant, integer(head.number) .. '-0'
    local found = redis.pcall('XRANGE', all, entry, entry)
    if found.err or (found[1] and found[1][2][2] == id) then
        return
    end
    local was = repair
    repair = ARGV[3] == '2'
    fault('unlisted', 'it is not in all:' .. head.tenant, not found[1] and can_add(all, head.number) and function()
        add_to_list(all, entry, id)
    end)
    repair = was
end

local highest = tonumber(call('HGET', root .. 'meta', 'number')) or 0

local function look_at_number(head)
    if highest < head.number then
        fault('number', 'its number ' .. integer(head.number) .. ' is above the highest that was given', function()
            highest = head.number
            call('HSET', root .. 'meta', 'number', integer(highest))
        end)
    end
end

local function first_of(row, epoch)
    if epoch == 0 then
        return 2
    end
    if tonumber(row.started_epoch or 0) == epoch then
        return row.runs == '1' and 1 or 2
    end
    return 0
end

-- The stored events end where the row says; of an ended job one more is told by the row itself.
local function look_at_log(id, row, ended)
    local epoch, seq = tonumber(row.epoch or 0), tonumber(row.seq or 2)
    local last = redis.pcall('XREVRANGE', root .. 'log:' .. id, '+', '-', 'COUNT', 1)
    last = not last.err and last[1]
    local next_seq = first_of(row, epoch)
    if last then
        local last_epoch, first = string.match(last[1], '^(%d+)-(%d+)$')
        if tonumber(last_epoch) > epoch then
            fault('log', 'its log ends at ' .. last[1] .. ', beyond epoch ' .. integer(epoch))
            return
        elseif tonumber(last_epoch) == epoch then
            local readable, events = pcall(cjson.decode, last[2][6])
            next_seq = tonumber(first) + (readable and #events or 0)
        end
    end
    next_seq = next_seq + (ended and 1 or 0)
    if next_seq ~= seq then
        fault('log', 'its log ends before ' .. next_seq .. ', and its row says ' .. seq)
    end
end

local function look_at(id)
    local key = root .. 'job:' .. id
    local kind = call('TYPE', key).ok
    told = {'', '', '', 0, 0, '', ''}
    if kind ~= 'hash' then
        if kind ~= 'none' then
            fault('type', 'a job is a hash, and this is a ' .. kind)
        end
        return
    end
    local values, row = call('HMGET', key, unpack(names)), {}
    for i, name in ipairs(names) do
        row[name] = values[i] or nil
    end
    local state = row.state or 'queued'
    if not row.head or not string.match(row.head, '^%S+ %S+ %S+ %d %d+ %S+ %d+ %-?%d+ %-?%d+ %d+$') then
        fault('row', 'its head cannot be read')
        return
    end
    if not states[state] then
        fault('row', 'there is no state ' .. state)
        return
    end
    local head = parse_head(row.head)
    local ticket = ticket_of(head.number, id)
    told = {state, head.queue, head.tenant, 0, integer(head.number), '', ''}
    look_for_queue(head.queue)
    look_at_number(head)
    look_in_all(id, head)
    if state == 'queued' and row.parked then
        told[6] = '1'
        look_in('parked:' .. row.parked, ticket, head.rank)
    elseif state == 'queued' then
        look_in('ready:' .. head.queue, ticket, head.rank)
    elseif state == 'scheduled' and row.run_at_ms then
        look_in('due', ticket, row.run_at_ms)
    elseif state == 'scheduled' then
        fault('row', 'it is scheduled, for no time')
    elseif state == 'running' then
        told[7] = row.limits or ''
        look_for_session(id, key, row)
    elseif state == 'failed' then
        look_in('failed:' .. head.tenant, ticket, head.number)
    end
    if states[state] == 'waits' and row.queue_deadline_ms then
        look_in('late', ticket, row.queue_deadline_ms)
    end
    if states[state] == 'ended' and row.expires_at_ms then
        look_in('ended', ticket, row.expires_at_ms)
        told[4] = bytes_of(key, head)
    end
    look_at_log(id, row, states[state] == 'ended')
end

local reply = {0, 0, 0}
for i = 4, #ARGV do
    look_at(ARGV[i])
    reply[#reply + 1] = told
end
if changed then
    return reply_of_write(reply)
end
return reply_of_read(reply)
