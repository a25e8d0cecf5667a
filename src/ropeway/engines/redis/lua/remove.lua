#!lua flags=allow-oom
-- purge and prune: terminal jobs leave with all that belongs to them, the key of their content too. Their idempotency
-- claims stay until those expire.
--
-- ARGV[3]   '' to prune at most ARGV[4] jobs past their retention, and while those that have one come to more than
--           ARGV[5] bytes ('' for no limit) also what would leave next; else the tenant whose jobs ARGV[4..] are to go
-- Returns   for each job named: 'gone', 'none' (not there, or another tenant's) or its state, when it has not ended;
--           for a prune, how many went
local reply = {0, 0, 0}
local terminal = {succeeded = true, failed = true, cancelled = true}

local function remove(id, head, cache)
    local ticket = ticket_of(head.number, id)
    if cache and call('HGET', root .. 'claim:' .. head.tenant .. '  ' .. cache, 'job') == id then
        call('UNLINK', root .. 'claim:' .. head.tenant .. '  ' .. cache)
    end
    if call('ZREM', root .. 'ended', ticket) == 1 then
        kept_bytes = kept_bytes - bytes_of(root .. 'job:' .. id, head)
    end
    call('UNLINK', root .. 'job:' .. id, root .. 'log:' .. id)
    call('ZREM', root .. 'failed:' .. head.tenant, ticket)
    call('XDEL', root .. 'all:' .. head.tenant, integer(head.number) .. '-0')
    if call('XLEN', root .. 'all:' .. head.tenant) == 0 then
        call('DEL', root .. 'all:' .. head.tenant)
    end
    hint_end(id)
end

local function purge(tenant, id)
    local job = call('HMGET', root .. 'job:' .. id, 'head', 'state', 'cache')
    local head = job[1] and parse_head(job[1])
    if not head or head.tenant ~= tenant then
        return 'none'
    end
    local state = job[2] or 'queued'
    if not terminal[state] then
        return state
    end
    remove(id, head, job[3])
    return 'gone'
end

local function prune_claims(limit)
    for _, name in ipairs(call('ZRANGEBYSCORE', root .. 'claims', '-inf', integer(now), 'LIMIT', 0, limit)) do
        local made = call('HMGET', root .. 'claim:' .. name, 'job', 'apart')
        if made[1] and call('EXISTS', root .. 'job:' .. made[1]) == 1 then
            call('ZADD', root .. 'claims', integer(now + 60000), name) -- kept for as long as its job
        elseif not made[2] then -- one whose job lives elsewhere: see claim.lua
            call('UNLINK', root .. 'claim:' .. name)
            call('ZREM', root .. 'claims', name)
        end
    end
end

-- Accounts are kept for 400 days (domain/usage.py).
local function prune_usage(limit)
    local oldest = integer(math.floor(now / 86400000) - 400)
    for _, name in ipairs(call('ZRANGEBYSCORE', root .. 'usages', '-inf', '(' .. oldest, 'LIMIT', 0, limit)) do
        call('UNLINK', root .. 'usage:' .. name)
        call('ZREM', root .. 'usages', name)
    end
end

-- Limits of which nothing need be remembered: see limiting.lua.
local function prune_limits(limit)
    for _, key in ipairs(call('ZRANGEBYSCORE', root .. 'idle', '-inf', integer(now), 'LIMIT', 0, limit)) do
        call('HDEL', root .. 'limits', key)
        call('ZREM', root .. 'idle', key)
    end
end

-- A tenant without a tag starts at virtual time all the same.
local function forget_idle_flows()
    for _, queue in ipairs(call('SMEMBERS', root .. 'queues')) do
        local tags = call('HGETALL', root .. 'queue:' .. queue)
        local virtual, idle = {}, {}
        for i = 1, #tags, 2 do
            local band = string.match(tags[i], '^v(%d)$')
            if band then
                virtual[band] = tonumber(tags[i + 1])
            end
        end
        for i = 1, #tags, 2 do
            local band = string.match(tags[i], '^f(%d) ')
            if band and #idle < 1000 and tonumber(tags[i + 1]) <= (virtual[band] or 0) then
                idle[#idle + 1] = tags[i]
            end
        end
        if #idle > 0 then
            call('HDEL', root .. 'queue:' .. queue, unpack(idle))
        end
    end
end

-- One that is not there, or a ticket of none, weighs nothing: its ticket goes.
local function remove_ticket(ticket)
    local id = string.sub(ticket, 14)
    local job = call('HMGET', root .. 'job:' .. id, 'head', 'cache')
    if job[1] then
        remove(id, parse_head(job[1]), job[2])
    else
        call('ZREM', root .. 'ended', ticket)
    end
end

local function prune_expired(limit)
    local expired = call('ZRANGEBYSCORE', root .. 'ended', '-inf', integer(now), 'LIMIT', 0, limit)
    for _, ticket in ipairs(expired) do
        remove_ticket(ticket)
    end
    return #expired
end

local function prune_bytes(limit, most)
    local kept = (tonumber(call('HGET', root .. 'meta', 'kept_bytes')) or 0) + kept_bytes
    local gone = 0
    if kept <= most or limit < 1 then
        return gone
    end
    for _, ticket in ipairs(call('ZRANGE', root .. 'ended', 0, limit - 1)) do
        local before = kept_bytes
        remove_ticket(ticket)
        gone = gone + 1
        kept = kept + kept_bytes - before
        if kept <= most then
            break
        end
    end
    return gone
end

if ARGV[3] == '' then
    local limit = tonumber(ARGV[4])
    local gone = prune_expired(limit)
    if ARGV[5] ~= '' then
        gone = gone + prune_bytes(limit - gone, tonumber(ARGV[5]))
    end
    prune_claims(limit)
    prune_usage(limit)
    prune_limits(limit)
    forget_idle_flows()
    reply[4] = gone
else
    for i = 4, #ARGV do
        reply[i] = purge(ARGV[3], ARGV[i])
    end
end
save_counts()
return reply_of_write(reply)
