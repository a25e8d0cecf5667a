#!lua flags=no-writes
-- read: jobs' rows and their stored events, of one moment.
--
-- ARGV[3..]  for each job four elements: its id, epoch and n of the cursor, and how many entries at most
-- Returns    for each two elements: its fields and values (without the input, and without an output that lies beyond what
--            is asked for: it may be a thousand times as large as a page), and the stream's entries from the one that may
--            hold the first event after the cursor: {{id, {'a', attempt, 't', at_ms, 'e', events}}, ...}
local reply = {0, 0, 0}
for i = 3, #ARGV, 4 do
    local id, epoch, n, limit = unpack(ARGV, i, i + 3)
    local job = call('HGETALL', root .. 'job:' .. id)
    local place = {}
    for j = 1, #job, 2 do
        place[job[j]] = j + 1
    end
    if place.input then
        job[place.input] = ''
    end
    if place.output and place.epoch and place.seq then
        local now, after = tonumber(job[place.epoch]), tonumber(epoch)
        local read = now == after and tonumber(n) or -1
        if now >= after and tonumber(job[place.seq]) > read + tonumber(limit) then
            job[place.output] = ''
        end
    end
    local log = root .. 'log:' .. id
    local start = call('XREVRANGE', log, epoch .. '-' .. n, '-', 'COUNT', 1)
    reply[#reply + 1] = job
    reply[#reply + 1] = call('XRANGE', log, start[1] and start[1][1] or '-', '+', 'COUNT', limit)
end
return reply_of_read(reply)
