-- What every script begins with: the partition's keys, its clock, its write counter, and the one way to move a job.
--
-- KEYS[1]  the partition's root, such as `ropeway:{0}`; every other key is this with a suffix, so all share a slot
-- ARGV[1]  the call's nonce: the first element of every reply, so that no reply can be taken for another call's
-- ARGV[2]  the time in ms since the epoch, or '0' for this server's own clock (tests give their own)
-- Returns  {nonce, writes, now, ...}: `writes` counts scripts that wrote; a server rolled back to an older state shows
local root = KEYS[1] .. ':'
local call = redis.call

local now = tonumber(ARGV[2])
local clock_us = now * 1000
if now == 0 then
    local time = call('TIME')
    clock_us = time[1] * 1000000 + time[2]
    now = math.floor(clock_us / 1000)
end

-- Hints (engines/hints.py), told once at the end of the script: who waits for jobs hears of all that changed, in one
-- message, which costs less than a message a job. Each kind has a channel of its own: a message wakes a process.
local hinted, hinted_jobs, hinted_ends, hinted_outputs, hinted_lifecycle = {}, {}, {}, {}, false

local function hint(topic)
    if not hinted[topic] then
        hinted[topic] = true
        hinted[#hinted + 1] = topic
    end
end

local function hint_job(id)
    hinted_jobs[#hinted_jobs + 1] = id
end

local function hint_end(id, output) -- it ended, or it has gone; a short output goes along: who waits for it need not ask
    hinted_jobs[#hinted_jobs + 1] = id
    hinted_ends[#hinted_ends + 1] = id
    hinted_outputs[#hinted_ends] = output or ''
end

local function hint_lifecycle()
    hinted_lifecycle = true
end

local function tell_hints()
    if #hinted > 0 then
        call('SPUBLISH', root .. 'hints', table.concat(hinted, ' '))
    end
    if #hinted_jobs > 0 then
        call('SPUBLISH', root .. 'hints:jobs', table.concat(hinted_jobs, ' '))
    end
    if #hinted_ends > 0 then
        call('SPUBLISH', root .. 'hints:ends', table.concat(hinted_ends, ' ') .. '\n' .. table.concat(hinted_outputs, '\n'))
    end
    if hinted_lifecycle then
        call('SPUBLISH', root .. 'hints:lifecycle', 'lifecycle')
    end
end

local function reply_of_write(reply)
    tell_hints()
    reply[1] = ARGV[1]
    reply[2] = call('HINCRBY', root .. 'meta', 'writes', 1)
    reply[3] = now
    return reply
end

local function reply_of_read(reply)
    reply[1] = ARGV[1]
    reply[2] = tonumber(call('HGET', root .. 'meta', 'writes') or 0)
    reply[3] = now
    return reply
end

local function text(number) -- a double, so that it comes back as the same one
    if number == math.floor(number) and number < 2 ^ 53 then
        return string.format('%d', number)
    end
    return string.format('%.17g', number)
end

local function integer(number) -- %d costs a third of %.0f
    return string.format('%d', number)
end

local now_text = integer(now)

-- A job's ticket: when it was submitted (us, 13 hex digits, unique and rising), then its id. Sorts as jobs came.
local function ticket_of(number, id)
    return string.format('%013x', number) .. id
end

-- The unchanging head of a job: `queue tenant task band number rank created keep failed_keep size`, names without
-- spaces, size the bytes of its input.
local function parse_head(head)
    local queue, tenant, number, rank, keep, failed_keep, size =
        string.match(head, '^(%S+) (%S+) %S+ %S+ (%S+) (%S+) %S+ (%S+) (%S+) (%S+)')
    return {
        queue = queue, tenant = tenant, number = tonumber(number), rank = rank, keep = tonumber(keep),
        failed_keep = tonumber(failed_keep), size = tonumber(size),
    }
end

-- Work is ready in a queue: one token wakes one worker, which wakes the next by what it leaves.
local function wake(queue)
    call('ZADD', root .. 'wake:' .. queue, 0, '1')
end

-- Counts by queue, tenant and state, gathered over the script and written once.
local counted = {}

local function inner(map, name)
    local found = map[name]
    if not found then
        found = {}
        map[name] = found
    end
    return found
end

local function count(queue, tenant, state, step)
    local counts = inner(inner(counted, queue), tenant)
    counts[state] = (counts[state] or 0) + step
end

-- The bytes of ended jobs that have a retention: how they change over the script. What a job weighs can be told from its
-- row at any time after it ended: its texts, its log, and about what it takes besides.
local kept_bytes = 0
local JOB_BYTES = 400

local function bytes_of(key, head)
    return JOB_BYTES + head.size + (tonumber(call('HGET', key, 'logged')) or 0) + call('HSTRLEN', key, 'output')
        + call('HSTRLEN', key, 'error')
end

local function save_counts()
    if kept_bytes ~= 0 then
        call('HINCRBY', root .. 'meta', 'kept_bytes', integer(kept_bytes))
        kept_bytes = 0
    end
    for queue, tenants in pairs(counted) do
        local key, all = root .. 'queue:' .. queue, {}
        local fields, steps, sums = {}, {}, {}
        for tenant, counts in pairs(tenants) do
            for state, step in pairs(counts) do
                all[state] = (all[state] or 0) + step
                fields[#fields + 1], steps[#steps + 1] = tenant .. '/' .. state, step
            end
        end
        for state, step in pairs(all) do
            fields[#fields + 1], steps[#steps + 1] = '/' .. state, step
        end
        local size = #fields
        fields[size + 1] = 'max_running'
        local values = call('HMGET', key, unpack(fields))
        for i = 1, size do
            sums[2 * i - 1], sums[2 * i] = fields[i], integer((values[i] or 0) + steps[i])
        end
        call('HSET', key, unpack(sums))
        if values[size + 1] and (all.running or 0) < 0 then
            wake(queue) -- there is room again
        end
    end
    counted = {}
end

local function waiting(queue, tenant) -- jobs that wait, queued and scheduled; tenant '' is all of them
    local found = call('HMGET', root .. 'queue:' .. queue, tenant .. '/queued', tenant .. '/scheduled')
    return (tonumber(found[1]) or 0) + (tonumber(found[2]) or 0)
end

-- The tickets of jobs that wait for limits, the first so many under each key, 5,000 in all and a few more at the most; nil
-- when there are many keys. `queues` tells where any may come from.
local function parked_in(queues, most)
    local found, waits = {}, 0
    for _, queue in ipairs(queues) do
        waits = waits + (tonumber(call('HGET', root .. 'queue:' .. queue, '/parked')) or 0)
    end
    if waits == 0 then
        return found
    elseif call('HLEN', root .. 'limits') > 1000 then
        return nil
    end
    for _, key in ipairs(call('HKEYS', root .. 'limits')) do
        for _, ticket in ipairs(#found <= 5000 and call('ZRANGE', root .. 'parked:' .. key, 0, most - 1) or {}) do
            found[#found + 1] = ticket
        end
    end
    return found
end

-- Leave the index of a state, and enter that of another.
local function leave(state, head, id, session)
    local ticket = ticket_of(head.number, id)
    if state == 'queued' then
        call('ZREM', root .. 'ready:' .. head.queue, ticket)
    elseif state == 'scheduled' then
        call('ZREM', root .. 'due', ticket)
    elseif state == 'running' and session then
        call('SREM', root .. 'held:' .. session, id)
        call('SREM', root .. 'asked:' .. session, id)
    end
end

local function enter(state, head, id, run_at)
    local ticket = ticket_of(head.number, id)
    if state == 'queued' then
        call('ZADD', root .. 'ready:' .. head.queue, head.rank, ticket)
        wake(head.queue)
    elseif state == 'scheduled' then
        call('ZADD', root .. 'due', run_at, ticket)
    end
end

local settled = {}

local function save_settled()
    if #settled > 0 then
        call('ZADD', root .. 'ended', unpack(settled))
    end
end

-- A job of so many bytes has ended: kept for so long, or for ever (-1), and a failed one on the list of the dead.
local function settle(state, head, id, bytes)
    local keep = head.keep
    local ticket = ticket_of(head.number, id)
    if state == 'failed' then
        keep = head.failed_keep
        call('ZADD', root .. 'failed:' .. head.tenant, head.number, ticket)
    end
    if keep >= 0 then
        settled[#settled + 1] = integer(now + keep)
        settled[#settled + 1] = ticket
        kept_bytes = kept_bytes + bytes
        return integer(now + keep)
    end
end

-- What attempts told as they ended: names and amounts, one after the other. Gathered over the script for each tenant's
-- account of today, and written once; `usages` lists the accounts by day, for who drops the old ones.
local accounts = {}

local function note_usage(head, told, ends)
    local tenant, task = string.match(head, '^%S+ (%S+) (%S+)')
    local account = inner(accounts, tenant)
    for i = 1, #told, 2 do
        local field = task .. ' ' .. told[i]
        account[field] = (account[field] or 0) + told[i + 1]
    end
    if ends and #told > 0 then
        account[task .. ' '] = (account[task .. ' '] or 0) + 1
    end
end

local function save_usage()
    local day = integer(math.floor(now / 86400000))
    for tenant, account in pairs(accounts) do
        for field, amount in pairs(account) do
            call('HINCRBYFLOAT', root .. 'usage:' .. day .. ' ' .. tenant, field, text(amount))
        end
        call('ZADD', root .. 'usages', day, day .. ' ' .. tenant)
    end
end

-- A job that another's end makes: into its line whatever that holds, unless its id is known. `queued` comes with the
-- counts that the script saves.
local function deliver(id, queue, tenant, task, band, cost, input, options, keep, failed_keep)
    local job, line, tag = root .. 'job:' .. id, root .. 'queue:' .. queue, 'f' .. band .. ' ' .. tenant
    if call('EXISTS', job) == 1 then
        return
    end
    local found = call('HMGET', line, 'max_depth', 'weights', 'v' .. band, tag)
    local weight = found[2] and cjson.decode(found[2])[tenant] or 1
    local start = math.max(tonumber(found[3]) or 0, tonumber(found[4]) or 0)
    local number = math.max((tonumber(call('HGET', root .. 'meta', 'number')) or 0) + 1, clock_us)
    local rank, number_text = text((2 - band) * 1e12 + start), integer(number)
    call('HSET', root .. 'meta', 'number', number_text)
    call('HSET', job, 'input', input, 'options', options, 'head', queue .. ' ' .. tenant .. ' ' .. task .. ' ' .. band
        .. ' ' .. number_text .. ' ' .. rank .. ' ' .. now_text .. ' ' .. keep .. ' ' .. failed_keep .. ' ' .. #input)
    call('XADD', root .. 'all:' .. tenant, number_text .. '-0', 'i', id)
    call('ZADD', root .. 'ready:' .. queue, rank, ticket_of(number, id))
    wake(queue)
    call('HSET', line, tag, text(start + cost / weight))
    if not found[1] then
        call('HSETNX', line, 'max_depth', 1000000)
        call('SADD', root .. 'queues', queue)
    end
    count(queue, tenant, 'queued', 1)
end
