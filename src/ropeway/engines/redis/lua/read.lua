#!lua flags=no-writes
-- read: a job's row and its stored events, of one moment.
--
-- ARGV[3]  id   ARGV[4] epoch and ARGV[5] n of the cursor   ARGV[6] at most so many entries
-- Returns  its fields and values (without the input, and without an output that lies beyond what is asked for: it may be
--          a thousand times as large as a page), and the stream's entries from the one that may hold the first event
--          after the cursor: {{id, {'a', attempt, 't', at_ms, 'e', events}}, ...}
local job = call('HGETALL', root .. 'job:' .. ARGV[3])
local place = {}
for j = 1, #job, 2 do
    place[job[j]] = j + 1
end
if place.input then
    job[place.input] = ''
end
if place.output and place.epoch and place.seq then
    local epoch, after = tonumber(job[place.epoch]), tonumber(ARGV[4])
    local n = epoch == after and tonumber(ARGV[5]) or -1
    if epoch >= after and tonumber(job[place.seq]) > n + tonumber(ARGV[6]) then
        job[place.output] = ''
    end
end
local log = root .. 'log:' .. ARGV[3]
local cursor = ARGV[4] .. '-' .. ARGV[5]
local start = call('XREVRANGE', log, cursor, '-', 'COUNT', 1)
local first = start[1] and start[1][1] or '-'
return reply_of_read({0, 0, 0, job, call('XRANGE', log, first, '+', 'COUNT', ARGV[6])})
