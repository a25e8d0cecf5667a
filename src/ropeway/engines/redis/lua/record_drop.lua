#!lua flags=allow-oom
-- drop, and what a prune does to records: they go, with all that lists them.
--
-- ARGV[3]  past: those whose time is over   ARGV[4] at most so many
-- ARGV[3]  named   ARGV[4..] for each: kind and tenant (a space between), id
-- Returns  how many were past; or for each 1 when it was there and had not expired, else 0
local reply = {0, 0, 0}

local function drop(place, id)
    local key = root .. 'rec:' .. place
    local row = call('HGET', key, id)
    if not row then
        return 0
    end
    local expires = string.match(row, '^%d+ %d+ (%S+) ')
    call('HDEL', key, id)
    call('ZREM', root .. 'ids:' .. place, id)
    if expires ~= '-' then
        call('ZREM', root .. 'past', place .. ' ' .. id)
    end
    return (expires == '-' or tonumber(expires) > now) and 1 or 0
end

if ARGV[3] == 'past' then
    local past = call('ZRANGEBYSCORE', root .. 'past', '-inf', now_text, 'LIMIT', 0, ARGV[4])
    for _, member in ipairs(past) do
        drop(string.match(member, '^([^ ]+ [^ ]*) (.*)$'))
        call('ZREM', root .. 'past', member)
    end
    reply[4] = #past
    return #past > 0 and reply_of_write(reply) or reply_of_read(reply)
end
for i = 4, #ARGV, 2 do
    reply[#reply + 1] = drop(ARGV[i], ARGV[i + 1])
end
return reply_of_write(reply)
