#!lua flags=no-writes
-- stats: what can be counted of every queue.
--
-- ARGV[3]  a tenant, '' for all
-- Returns  for each queue: name, policy as queue.lua tells it, counts (scheduled, queued, running, succeeded, failed,
--          cancelled), and the submit (ms) of the job queued longest, '' when none is
local LOOK = 256 -- a flow is in line by submit, so its oldest stands first; it is looked for among so many of each band, and
-- of those parked under each limit
local reply = {0, 0, 0}
local tenant = ARGV[3]

local function oldest_of(queue) -- by number, which rises though the clock may be set back
    local oldest, created
    local function look_at(tickets)
        for _, ticket in ipairs(tickets) do
            local number = tonumber(string.sub(ticket, 1, 13), 16)
            if not oldest or number < oldest then
                local text_of_head = call('HGET', root .. 'job:' .. string.sub(ticket, 14), 'head')
                local head = text_of_head and parse_head(text_of_head)
                if head and head.queue == queue and (tenant == '' or head.tenant == tenant) then
                    oldest, created = number, string.match(text_of_head, '^%S+ %S+ %S+ %S+ %S+ %S+ (%S+)')
                end
            end
        end
    end
    for band = 0, 2 do
        look_at(call('ZRANGEBYSCORE', root .. 'ready:' .. queue, integer(band * 1e12),
            '(' .. integer((band + 1) * 1e12), 'LIMIT', 0, LOOK))
    end
    look_at(parked_in({queue}, LOOK) or {})
    return created or ''
end

local queues = call('SMEMBERS', root .. 'queues')
table.sort(queues)
for _, queue in ipairs(queues) do
    local key = root .. 'queue:' .. queue
    local policy = call('HMGET', key, 'max_depth', 'max_depth_per_tenant', 'weights', 'paused', 'max_running')
    local counts = call('HMGET', key, tenant .. '/scheduled', tenant .. '/queued',
        tenant .. '/running', tenant .. '/succeeded', tenant .. '/failed', tenant .. '/cancelled')
    for i = 1, 6 do
        counts[i] = tonumber(counts[i]) or 0
    end
    reply[#reply + 1] = queue
    reply[#reply + 1] = {policy[1], policy[2] or '', policy[3] or '', policy[4] or '', policy[5] or ''}
    reply[#reply + 1] = counts
    reply[#reply + 1] = counts[2] > 0 and oldest_of(queue) or ''
end
return reply_of_read(reply)
