#!lua flags=allow-oom
-- elect: who holds a duty.
--
-- ARGV[3]  duty   ARGV[4] who wants it   ARGV[5] ttl in ms
-- Returns  1 when it is theirs until then, 0 when another holds it
local key = root .. 'duty:' .. ARGV[3]
local duty = call('HMGET', key, 'holder', 'until')
if duty[1] and duty[1] ~= ARGV[4] and tonumber(duty[2]) > now then
    return reply_of_read({0, 0, 0, 0})
end
call('HSET', key, 'holder', ARGV[4], 'until', integer(now + tonumber(ARGV[5])))
return reply_of_write({0, 0, 0, 1})
