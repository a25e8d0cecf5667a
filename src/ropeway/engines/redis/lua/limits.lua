#!lua flags=allow-oom
-- set_limits, signal, limits: what is known of limits' keys (see limiting.lua).
--
-- ARGV[3]   set       ARGV[4..] for each two elements: key, and its policy: `max_running,per_s,burst`, '-' for none
-- ARGV[3]   signal    ARGV[4..] for each seven elements: a limit as it lies in a job's hash (key, max_running, per_s, burst,
--           amount), what is left ('-': it was not told), and for how many ms nothing is taken
-- ARGV[3]   tell      ARGV[4] the cursor of a scan
-- Returns   set: for each key two elements: what is known of it as its row tells it, and how many are parked under it;
--           tell: the next cursor, then three for each key: it, and those two
local reply = {0, 0, 0}

local function tell(key, row)
    reply[#reply + 1] = row or '0 - 0 0 -'
    reply[#reply + 1] = call('ZCARD', root .. 'parked:' .. key)
end

if ARGV[3] == 'tell' then
    local found = call('HSCAN', root .. 'limits', ARGV[4], 'COUNT', 500)
    reply[4] = found[1]
    for i = 1, #found[2], 2 do
        reply[#reply + 1] = found[2][i]
        tell(found[2][i], found[2][i + 1])
    end
    return reply_of_read(reply)
end
if ARGV[3] == 'signal' then
    for i = 4, #ARGV, 7 do
        local limit = limiter().parse(table.concat(ARGV, ' ', i, i + 4))[1]
        limiter().signal(limit, tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]))
    end
else
    for i = 4, #ARGV, 2 do
        limiter().set(ARGV[i], ARGV[i + 1])
    end
end
limiter().settle()
save_counts()
if ARGV[3] == 'set' then
    for i = 4, #ARGV, 2 do
        tell(ARGV[i], call('HGET', root .. 'limits', ARGV[i]))
    end
end
return reply_of_write(reply)
