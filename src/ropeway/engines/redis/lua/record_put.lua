#!lua
-- put: records, each a compare-and-set on its version, one after the other; one that conflicts stops no other.
--
-- A row is `version created expires word body`: expires '-' for ever, the word its writer's own, by which a repeat of
-- the call is known. Its id is listed in `ids`, and its time to go, if it has one, in `past`.
--
-- ARGV[3..] for each: kind and tenant (a space between), id, the version that it must have ('' for any), ttl in ms ('' for
--           ever), the writer's word, body
-- Returns   for each {version, created, expires} of what was written, else the row that is there, '' for none
local reply = {0, 0, 0}
local changed = false

local function put(place, id, expected, ttl, word, body)
    local key = root .. 'rec:' .. place
    local row = call('HGET', key, id)
    local version, created, expires = 0, now_text, '-'
    if row then
        local known = {string.match(row, '^(%d+) (%d+) (%S+) (%S+) ')}
        if known[4] == word then
            return {known[1], known[2], known[3]}
        elseif known[3] == '-' or tonumber(known[3]) > now then
            version, created = tonumber(known[1]), known[2]
        else
            row = nil
        end
        expires = known[3]
    end
    if expected ~= '' and tonumber(expected) ~= version then
        return row or ''
    end
    local had_end = expires ~= '-'
    expires = ttl == '' and '-' or integer(now + tonumber(ttl))
    version = integer(version + 1)
    call('HSET', key, id, table.concat({version, created, expires, word, body}, ' '))
    call('ZADD', root .. 'ids:' .. place, 0, id)
    if expires ~= '-' then
        call('ZADD', root .. 'past', expires, place .. ' ' .. id)
    elseif had_end then
        call('ZREM', root .. 'past', place .. ' ' .. id)
    end
    changed = true
    return {version, created, expires}
end

for i = 3, #ARGV, 6 do
    reply[#reply + 1] = put(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
end
return changed and reply_of_write(reply) or reply_of_read(reply)
