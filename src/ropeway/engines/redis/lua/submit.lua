#!lua
-- submit: - -> queued | scheduled. Each job with its rank, its idempotency claim and its counts, or none of it.
--
-- ARGV[3]   milliseconds that an idempotency key stays claimed
-- ARGV[4]   how many kinds of jobs there are; for each 8 elements: queue, tenant, task, band, cost, options ('' are the
--           default ones), keep and failed_keep (ms, -1: for ever)
-- ARGV[..]  for each job 4: its kind (1 is the first), id, input, rest ('' for none): cjson of {delay, wait, retry_of,
--           key, fingerprint, most, hook, limits, cache, ttl, fresh}
-- Returns   for each job two elements: rank and depth; or {known job's fields} and depth, with a field `cached` when it is
--           another of the same content; or a refusal and a depth: 'own' (the tenant's limit), 'full', 'reused', 'gone',
--           'taken'
local reply = {0, 0, 0}
local FIRST_JOB = 5 + 8 * ARGV[4]
local meta = call('HMGET', root .. 'meta', 'number', 'writes')
local number = tonumber(meta[1] or 0)

-- What a queue's hash holds of what is asked here. Its numbers are written back once, at the end.
local lines = {}

local function line_of(queue)
    local line = lines[queue]
    if not line then
        line = {key = root .. 'queue:' .. queue, numbers = {}, changed = {}, ready = {}}
        lines[queue] = line
    end
    return line
end

local function load(line, tenant, band)
    local tag, queued, scheduled = 'f' .. band .. ' ' .. tenant, tenant .. '/queued', tenant .. '/scheduled'
    local found = call('HMGET', line.key, 'max_depth', 'max_depth_per_tenant', 'weights', '/queued', '/scheduled',
        'v' .. band, tag, queued, scheduled)
    local numbers = line.numbers
    if not line.max_depth then
        line.known, line.max_depth, line.max_own = found[1], tonumber(found[1]) or 1000000, tonumber(found[2])
        numbers['/queued'], numbers['/scheduled'] = tonumber(found[4]) or 0, tonumber(found[5]) or 0
    end
    numbers[tag] = numbers[tag] or tonumber(found[7]) or 0
    numbers[queued] = numbers[queued] or tonumber(found[8]) or 0
    numbers[scheduled] = numbers[scheduled] or tonumber(found[9]) or 0
    return tag, queued, scheduled, tonumber(found[6]) or 0, found[3] and cjson.decode(found[3])[tenant] or 1
end

-- The kinds, each looked up when its first job comes.
local kinds = {}

local function kind_of(place)
    local at = 8 * place - 3
    local queue, tenant, task, band, cost, options, keep, failed_keep = unpack(ARGV, at, at + 7)
    local line = line_of(queue)
    local tag, queued, scheduled, virtual, weight = load(line, tenant, band)
    local kind = {
        line = line, tenant = tenant, tag = tag, queued = queued, scheduled = scheduled, virtual = virtual,
        step = cost / weight, base = (2 - band) * 1e12, options = options, log = root .. 'all:' .. tenant,
        head = queue .. ' ' .. tenant .. ' ' .. task .. ' ' .. band .. ' ',
        tail = ' ' .. now_text .. ' ' .. keep .. ' ' .. failed_keep .. ' ',
    }
    kinds[place] = kind
    return kind
end

-- Whether any of these ids may be known: asked once for all, since nearly always none is.
local keys, seen, any_known = {}, {}, false
for i = FIRST_JOB + 1, #ARGV, 4 do
    keys[#keys + 1] = root .. 'job:' .. ARGV[i]
    any_known = any_known or seen[ARGV[i]]
    seen[ARGV[i]] = true
end
any_known = any_known or (#keys > 0 and call('EXISTS', unpack(keys)) > 0)

local function depth_of(line)
    return line.numbers['/queued'] + line.numbers['/scheduled']
end

-- A job that is there, and how many wait in its queue.
local function known(id, queue)
    local fields = call('HGETALL', root .. 'job:' .. id)
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = id
    local line = lines[queue] -- what this very call has added is not written yet
    return fields, line and line.max_depth and depth_of(line) or waiting(queue, '')
end

-- The answer when this id, or this idempotency key, was submitted before.
local function earlier(id, kind, rest)
    local found = any_known and call('HGET', root .. 'job:' .. id, 'head')
    if not found and rest and rest.key then
        local made = call('HMGET', root .. 'claim:' .. kind.tenant .. ' ' .. rest.key, 'job', 'fingerprint')
        if not made[1] then
            return nil
        end
        if made[2] ~= rest.fingerprint then
            return 'reused', 0
        end
        id = made[1]
        found = call('HGET', root .. 'job:' .. id, 'head')
        if not found then
            return 'gone', 0
        end
    end
    if not found then
        return nil
    end
    local head = parse_head(found)
    if head.tenant ~= kind.tenant then
        return 'taken', 0
    end
    return known(id, head.queue)
end

local function claim(tenant, rest, id)
    local name = tenant .. ' ' .. rest.key
    local expires = integer(now + tonumber(ARGV[3]))
    call('HSET', root .. 'claim:' .. name, 'job', id, 'fingerprint', rest.fingerprint, 'expires', expires)
    call('ZADD', root .. 'claims', expires, name)
end

-- The answer when another job has come, or is coming, to what this one asks: the rules stand in domain/cache.py.
local function served(id, kind, rest)
    local held = call('HMGET', root .. 'claim:' .. kind.tenant .. '  ' .. rest.cache, 'job', 'ttl')
    local key = root .. 'job:' .. (held[1] or '')
    local job = call('HMGET', key, 'head', 'state', 'cancel_requested_at_ms', 'finished_at_ms', 'joined', 'sharers',
        'version')
    if not job[1] or job[3] or rest.fresh then
        return nil
    end
    -- One more shares it; whether it is new to it. A submit that is sent again shares it once (domain/change.py).
    local function join()
        local words = {}
        for word in string.gmatch(job[6] or '', '%S+') do
            if word == id then
                return false
            end
            words[#words + 1] = word
        end
        words[#words + 1] = id
        local sharers = table.concat(words, ' ', math.max(#words - 7, 1))
        call('HSET', key, 'joined', (job[5] or 0) + 1, 'sharers', sharers, 'version', (job[7] or 1) + 1)
        hint_job(held[1])
        return true
    end
    local state, counted_as = job[2] or 'queued', 'cache_joins'
    local queue, task, band = string.match(job[1], '^(%S+) %S+ (%S+) (%S+)')
    if state == 'succeeded' and now < job[4] + math.min(held[2], rest.ttl) then
        counted_as = 'cache_hits'
    elseif state ~= 'running' and (state ~= 'queued' and state ~= 'scheduled' or kind.base < (2 - band) * 1e12) then
        return nil
    elseif not join() then
        counted_as = nil
    end
    if counted_as then
        local day = integer(math.floor(now / 86400000))
        call('HINCRBYFLOAT', root .. 'usage:' .. day .. ' ' .. kind.tenant, task .. ' ' .. counted_as, 1)
        call('ZADD', root .. 'usages', day, day .. ' ' .. kind.tenant)
    end
    if rest.key then
        claim(kind.tenant, rest, held[1])
    end
    local fields, depth = known(held[1], queue)
    fields[#fields + 1] = 'cached'
    fields[#fields + 1] = '1'
    return fields, depth
end

local waits_for_time = false

-- What few jobs have. Whether it waits for its time.
local function add_rest(job, id, kind, rest, ticket)
    local from = now
    if rest.delay then
        from = now + rest.delay
        call('HSET', job, 'state', 'scheduled', 'run_at_ms', integer(from))
        call('ZADD', root .. 'due', integer(from), ticket)
        waits_for_time = true
    end
    if rest.wait then
        call('HSET', job, 'queue_deadline_ms', integer(from + rest.wait))
        call('ZADD', root .. 'late', integer(from + rest.wait), ticket)
        waits_for_time = true
    end
    if rest.retry_of then
        call('HSET', job, 'retry_of', rest.retry_of)
    end
    if rest.hook then -- its end does more than others': see commit.lua
        call('HSET', job, 'hook', '1')
    end
    if rest.limits then
        call('HSET', job, 'limits', rest.limits)
    end
    if rest.key then
        claim(kind.tenant, rest, id)
        call('HSET', job, 'claim', rest.key)
    end
    if rest.cache then -- this claim goes with its job: see remove.lua
        call('HSET', root .. 'claim:' .. kind.tenant .. '  ' .. rest.cache, 'job', id, 'ttl', rest.ttl)
        call('HSET', job, 'cache', rest.cache)
    end
    return rest.delay
end

local function add(job, id, kind, input, rest)
    local line = kind.line
    local numbers, changed, ready = line.numbers, line.changed, line.ready
    local start = math.max(kind.virtual, numbers[kind.tag])
    numbers[kind.tag] = start + kind.step
    changed[kind.tag] = true
    number = math.max(number + 1, clock_us)
    local rank, ticket, number_text = text(kind.base + start), ticket_of(number, id), integer(number)
    local head = kind.head .. number_text .. ' ' .. rank .. kind.tail .. #input
    if kind.options == '' then
        call('HSET', job, 'head', head, 'input', input)
    else
        call('HSET', job, 'head', head, 'input', input, 'options', kind.options)
    end
    call('XADD', kind.log, number_text .. '-0', 'i', id)
    local own, all = kind.queued, '/queued'
    if rest and add_rest(job, id, kind, rest, ticket) then
        own, all = kind.scheduled, '/scheduled'
    else
        local size = #ready
        ready[size + 1], ready[size + 2] = rank, ticket
    end
    numbers[own], numbers[all] = numbers[own] + 1, numbers[all] + 1
    changed[own], changed[all] = true, true
    return rank
end

-- The answer to one job, and how many wait before it or with it.
local function take(job, id, kind, input, rest)
    if any_known or rest then
        local answer, depth = earlier(id, kind, rest)
        if answer then
            return answer, depth
        end
    end
    if rest and rest.cache then
        local answer, depth = served(id, kind, rest)
        if answer then
            return answer, depth
        end
    end
    local line = kind.line
    local own, depth = line.numbers[kind.queued] + line.numbers[kind.scheduled], depth_of(line)
    if (line.max_own and own >= line.max_own) or (rest and rest.most and own >= rest.most) then
        return 'own', own
    elseif depth >= line.max_depth then
        return 'full', depth
    end
    return add(job, id, kind, input, rest), depth + 1
end

for i = FIRST_JOB, #ARGV, 4 do
    local rest = ARGV[i + 3]
    local kind = kinds[ARGV[i]] or kind_of(ARGV[i])
    local size = #reply
    reply[size + 1], reply[size + 2] =
        take(keys[size / 2 - 0.5], ARGV[i + 1], kind, ARGV[i + 2], rest ~= '' and cjson.decode(rest) or nil)
end

local accepted = false
for queue, line in pairs(lines) do
    local fields = {}
    for field in pairs(line.changed) do
        fields[#fields + 1] = field
        fields[#fields + 1] = text(line.numbers[field])
    end
    if #fields > 0 then
        accepted = true
        call('HSET', line.key, unpack(fields))
        if not line.known then
            call('HSETNX', line.key, 'max_depth', 1000000)
            call('SADD', root .. 'queues', queue)
        end
    end
    if #line.ready > 0 then
        call('ZADD', root .. 'ready:' .. queue, unpack(line.ready))
        wake(queue)
    end
end
if not accepted then
    return reply_of_write(reply)
end
if waits_for_time then
    hint('upkeep')
end
hint_lifecycle()
tell_hints()
local writes = (tonumber(meta[2]) or 0) + 1
call('HSET', root .. 'meta', 'number', integer(number), 'writes', integer(writes))
reply[1], reply[2], reply[3] = ARGV[1], writes, now
return reply
