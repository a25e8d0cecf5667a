#!lua flags=allow-oom
-- fsck: what lists records held against them, all of one moment.
--
-- ARGV[3]  '1' to put right what can be   ARGV[4] ids or past   ARGV[5] kind and tenant (of ids), ''   ARGV[6..] members
-- Returns  for each {} when all is well or it has left since, else what is wrong, and 1 (put right), 0 (it can be) or -1
--          (it cannot)
local repair = ARGV[3] == '1'
local place = ARGV[5]
local past = root .. 'past'
local changed = false

local function look_at_record(id, row)
    local name = place .. ' ' .. id
    local expires = string.match(row, '^%d+ %d+ (%S+) %S+ ')
    local ends = tonumber(call('ZSCORE', past, name) or nil)
    if expires ~= '-' and not tonumber(expires) then
        return 'the row of ' .. id .. ' cannot be read', nil
    elseif expires == '-' and ends then
        return id .. ' is kept for ever, and is listed to go', {'ZREM', past, name}
    elseif expires ~= '-' and ends ~= tonumber(expires) then
        return id .. ' is not listed to go when its time is over', {'ZADD', past, expires, name}
    end
end

local function look_at_listed(id)
    local row = call('HGET', root .. 'rec:' .. place, id)
    if not row then
        return 'there is no record ' .. id, {'ZREM', root .. 'ids:' .. place, id}
    end
    return look_at_record(id, row)
end

local function look_at_past(member)
    local whose, id = string.match(member, '^([^ ]+ [^ ]*) (.*)$')
    if not whose or call('HEXISTS', root .. 'rec:' .. whose, id) == 0 then
        return 'there is no record ' .. member, {'ZREM', past, member}
    end
end

local key = ARGV[4] == 'past' and past or root .. 'ids:' .. place
local look = ARGV[4] == 'past' and look_at_past or look_at_listed
local reply = {0, 0, 0}
for i = 6, #ARGV do
    local what, remedy
    if call('ZSCORE', key, ARGV[i]) then
        what, remedy = look(ARGV[i])
    end
    if remedy and repair then
        call(unpack(remedy))
        changed = true
    end
    reply[#reply + 1] = what and {what, not remedy and -1 or repair and 1 or 0} or {}
end
return changed and reply_of_write(reply) or reply_of_read(reply)
