#!lua flags=allow-oom
-- meet: who comes over a new connection looks whether this is the store that it knew, no older than it knew it.
--
-- `epoch` is a random word that changes when acknowledged writes are known to be lost. `base` is how many writes the
-- server knew when it was first met under its present run id: by that, who comes later sees too that a server came back
-- with less than it had acknowledged, though others have written since.
--
-- ARGV[3]  the server's run id   ARGV[4] and ARGV[5] the epoch and the run id that the caller knew, '' when none
-- ARGV[6]  the writes that were acknowledged to the caller   ARGV[7] a random word, for an epoch
-- Returns  the epoch, and how many writes are counted where the caller's are to be: fewer than it knows of, or another
--          epoch, mean that some are lost. Then every session is over: what they hold is leased by nobody any more
local run, known_epoch, known_run, known_writes, word = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local meta = root .. 'meta'
local found = call('HMGET', meta, 'epoch', 'run', 'base', 'writes')
local epoch, base, writes = found[1], tonumber(found[3]) or 0, tonumber(found[4]) or 0

-- Under other names, which no worker renews: a rescue ends the attempts that they hold.
local function end_sessions()
    for _, session in ipairs(call('ZRANGE', root .. 'sessions', 0, -1)) do
        local gone = word .. ':' .. session
        local held = call('SMEMBERS', root .. 'held:' .. session)
        for _, id in ipairs(held) do
            call('HSET', root .. 'job:' .. id, 'session', gone, 'token', gone)
        end
        if #held > 0 then
            call('RENAME', root .. 'held:' .. session, root .. 'held:' .. gone)
            call('ZADD', root .. 'sessions', 0, gone)
        end
        call('ZREM', root .. 'sessions', session)
        call('DEL', root .. 'session:' .. session, root .. 'asked:' .. session)
    end
end

if found[2] ~= run then
    base = writes
    call('HSET', meta, 'run', run, 'base', base)
end
local counted = known_run == run and writes or base
if not epoch then
    epoch = word
    call('HSET', meta, 'epoch', epoch)
elseif epoch == known_epoch and counted < known_writes then
    epoch = word
    call('HSET', meta, 'epoch', epoch)
    end_sessions()
end
return reply_of_read({0, 0, 0, epoch, counted})
