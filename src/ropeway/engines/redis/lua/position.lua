#!lua flags=no-writes
-- position: how many queued jobs go before one.
--
-- ARGV[3]  tenant   ARGV[4] id
-- Returns  its place in line from 0, or among those parked under the same key; or -1
local FLOOR = 10 -- domain/rank.py
local job = call('HMGET', root .. 'job:' .. ARGV[4], 'head', 'state', 'parked')
local head = job[1] and parse_head(job[1])
local place
if head and head.tenant == ARGV[3] and (job[2] or 'queued') == 'queued' then
    local ready = root .. 'ready:' .. head.queue
    place = call('ZRANK', job[3] and root .. 'parked:' .. job[3] or ready, ticket_of(head.number, ARGV[4]))
    local band = math.floor(head.rank / 1e12)
    if place and not job[3] and band > 0 then -- of those in higher bands, nine go before each of its own
        local higher = call('ZCOUNT', ready, '-inf', '(' .. integer(band * 1e12))
        local passed = {string.match(call('HGET', root .. 'queue:' .. head.queue, 'passed') or '', '^(%S+) (%S+)$')}
        local same = place - higher
        place = same + math.min(higher, math.max((same + 1) * (FLOOR - 1) - (tonumber(passed[band]) or 0), 0))
    end
end
return reply_of_read({0, 0, 0, place or -1})
