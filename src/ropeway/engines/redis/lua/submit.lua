#!lua
-- submit: - -> queued | scheduled. Each job with its rank, its idempotency claim and its counts, or none of it.
--
-- ARGV[3]   milliseconds that an idempotency key stays claimed
-- ARGV[4..] for each job: id, queue, tenant, task, band, cost, input, options ('' are the default ones), keep and
--           failed_keep (ms, -1: for ever), rest ('' for none): cjson of {delay, wait, retry_of, key, fingerprint}
-- Returns   for each job two elements: rank and depth; or {known job's fields} and depth; or a refusal and a depth:
--           'own' (the tenant's limit), 'full', 'reused', 'gone', 'taken'
local reply = {0, 0, 0}
local flows, depths = {}, {}
local flow_names = {'max_depth', 'max_depth_per_tenant', 'weights'}

local function depth_of(queue)
    if not depths[queue] then
        depths[queue] = waiting(queue, '')
    end
    return depths[queue]
end

local function flow_of(queue, tenant, band)
    local name = queue .. ' ' .. tenant .. ' ' .. band
    local flow = flows[name]
    if not flow then
        local policy = call('HMGET', root .. 'queue:' .. queue, unpack(flow_names))
        local tags = call('HMGET', root .. 'tags:' .. queue, 'v' .. band, 'f' .. band .. ' ' .. tenant)
        flow = {
            queue = queue,
            field = 'f' .. band .. ' ' .. tenant,
            max_depth = tonumber(policy[1]) or 1000000,
            max_own = tonumber(policy[2]),
            weight = policy[3] and cjson.decode(policy[3])[tenant] or 1,
            virtual = tonumber(tags[1]) or 0,
            finish = tonumber(tags[2]) or 0,
            known = policy[1],
        }
        flows[name] = flow
    end
    return flow
end

local owns = {}

local function own_of(queue, tenant)
    local name = queue .. ' ' .. tenant
    if not owns[name] then
        owns[name] = waiting(queue, tenant)
    end
    return owns[name], name
end

-- Whether any of these ids may be known: asked once for all, since nearly always none is.
local keys, seen, any_known = {}, {}, false
for i = 4, #ARGV, 11 do
    keys[#keys + 1] = root .. 'job:' .. ARGV[i]
    any_known = any_known or seen[ARGV[i]]
    seen[ARGV[i]] = true
end
any_known = any_known or (#keys > 0 and call('EXISTS', unpack(keys)) > 0)

-- The answer when this id, or this idempotency key, was submitted before.
local function earlier(id, tenant, rest)
    local found = any_known and call('HGET', root .. 'job:' .. id, 'head')
    if not found and rest and rest.key then
        local claim = call('HMGET', root .. 'claim:' .. tenant .. ' ' .. rest.key, 'job', 'fingerprint')
        if not claim[1] then
            return nil
        end
        if claim[2] ~= rest.fingerprint then
            return 'reused', 0
        end
        id = claim[1]
        found = call('HGET', root .. 'job:' .. id, 'head')
        if not found then
            return 'gone', 0
        end
    end
    if not found then
        return nil
    end
    local head = parse_head(found)
    if head.tenant ~= tenant then
        return 'taken', 0
    end
    local fields = call('HGETALL', root .. 'job:' .. id)
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = id
    return fields, depth_of(head.queue)
end

local number = tonumber(call('HGET', root .. 'meta', 'number') or 0)
local ready, waits_for_time = {}, false

local function add(id, queue, tenant, task, band, cost, input, options, keep, failed_keep, rest, flow)
    local start = math.max(flow.virtual, flow.finish)
    flow.finish = start + cost / flow.weight
    flow.moved = true
    local rank = text((2 - band) * 1e12 + start)
    number = math.max(number + 1, clock_us)
    local ticket, number_text = ticket_of(number, id), integer(number)
    local head = queue .. ' ' .. tenant .. ' ' .. task .. ' ' .. band .. ' ' .. number_text .. ' ' .. rank .. ' '
        .. now_text .. ' ' .. keep .. ' ' .. failed_keep .. ' ' .. #input
    local job = root .. 'job:' .. id
    local state = 'queued'
    if options == '' then
        call('HSET', job, 'head', head, 'input', input)
    else
        call('HSET', job, 'head', head, 'input', input, 'options', options)
    end
    if rest then
        local from = now
        if rest.delay then
            state = 'scheduled'
            from = now + rest.delay
            call('HSET', job, 'state', state, 'run_at_ms', integer(from))
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
        if rest.key then
            local name = tenant .. ' ' .. rest.key
            local expires = integer(now + tonumber(ARGV[3]))
            call('HSET', root .. 'claim:' .. name, 'job', id, 'fingerprint', rest.fingerprint, 'expires', expires)
            call('ZADD', root .. 'claims', expires, name)
            call('HSET', job, 'claim', rest.key)
        end
    end
    if state == 'queued' then
        local line = ready[queue]
        if not line then
            line = {}
            ready[queue] = line
        end
        line[#line + 1] = rank
        line[#line + 1] = ticket
    end
    call('XADD', root .. 'all:' .. tenant, number_text .. '-0', 'i', id)
    count(queue, tenant, state, 1)
    return rank
end

for i = 4, #ARGV, 11 do
    local id, queue, tenant, task, band, cost, input, options, keep, failed_keep, rest = unpack(ARGV, i, i + 10)
    rest = rest ~= '' and cjson.decode(rest) or nil
    local answer, depth
    if any_known or rest then
        answer, depth = earlier(id, tenant, rest)
    end
    if not answer then
        local flow = flow_of(queue, tenant, band)
        local own, own_name
        if flow.max_own then -- of a queue without such a limit nobody asks
            own, own_name = own_of(queue, tenant)
        end
        depth = depth_of(queue)
        if own and own >= flow.max_own then
            answer, depth = 'own', own
        elseif depth >= flow.max_depth then
            answer = 'full'
        else
            answer = add(id, queue, tenant, task, band, cost, input, options, keep, failed_keep, rest, flow)
            depth = depth + 1
            depths[queue] = depth
            if own then
                owns[own_name] = own + 1
            end
        end
    end
    reply[#reply + 1] = answer
    reply[#reply + 1] = depth
end

local accepted = false
for _, flow in pairs(flows) do
    if flow.moved then
        accepted = true
        call('HSET', root .. 'tags:' .. flow.queue, flow.field, text(flow.finish))
        if not flow.known then
            call('HSETNX', root .. 'queue:' .. flow.queue, 'max_depth', 1000000)
            call('SADD', root .. 'queues', flow.queue)
        end
    end
end
if accepted then
    call('HSET', root .. 'meta', 'number', integer(number))
    save_counts()
    for queue, line in pairs(ready) do
        call('ZADD', root .. 'ready:' .. queue, unpack(line))
        wake(queue)
    end
    if waits_for_time then
        hint('upkeep')
    end
    hint('lifecycle')
end
return reply_of_write(reply)
