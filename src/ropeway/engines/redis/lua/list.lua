#!lua flags=no-writes
-- list: the tickets of a tenant's jobs in some states (of scheduled, queued, running, failed), when they are few.
--
-- ARGV[3]  tenant   ARGV[4] states, spaces between   ARGV[5] a queue, '' for all
-- Returns  'listed' and the tickets (other tenants' jobs may be among them), or 'many'
local MANY = 5000
local found = {}
local queues = ARGV[5] ~= '' and {ARGV[5]} or call('SMEMBERS', root .. 'queues')

local function add(tickets)
    for _, ticket in ipairs(tickets) do
        found[#found + 1] = ticket
    end
end

local function held()
    for _, session in ipairs(call('ZRANGE', root .. 'sessions', 0, -1)) do
        for _, id in ipairs(call('SMEMBERS', root .. 'held:' .. session)) do
            local head = call('HGET', root .. 'job:' .. id, 'head')
            if head then
                found[#found + 1] = ticket_of(parse_head(head).number, id)
            end
        end
    end
end

for state in string.gmatch(ARGV[4], '%S+') do
    if state == 'queued' then
        for _, queue in ipairs(queues) do
            add(call('ZRANGE', root .. 'ready:' .. queue, 0, MANY))
        end
        local parked = parked_in(queues, MANY)
        if not parked then
            return reply_of_read({0, 0, 0, 'many'})
        end
        add(parked)
    elseif state == 'scheduled' then
        add(call('ZRANGE', root .. 'due', 0, MANY))
    elseif state == 'failed' then
        add(call('ZRANGE', root .. 'failed:' .. ARGV[3], 0, MANY))
    elseif state == 'running' then
        held()
    end
    if #found > MANY then
        return reply_of_read({0, 0, 0, 'many'})
    end
end
return reply_of_read({0, 0, 0, 'listed', found})
