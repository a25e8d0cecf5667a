#!lua flags=allow-oom
-- append: events of running attempts, under their leases, each a compare-and-set on the next n.
--
-- ARGV[3..]  for each append eight elements: id, token, the n expected, how many events, their JSON, progress and usage
--            (the last of them; '' for none), and '1' when one is output
-- Returns    for each {next n, cancel asked}, with a third element when another n was expected; or 'lost'
--
-- One stream entry holds all the events of one append, under the id `<epoch>-<n of the first>`: ids only rise, so a
-- stream refuses what an older attempt would add.
local reply = {0, 0, 0}
local changed = false

for i = 3, #ARGV, 8 do
    local id, token, first, size, events, progress, usage, output = unpack(ARGV, i, i + 7)
    local key, log = root .. 'job:' .. id, root .. 'log:' .. id
    local job = call('HMGET', key, 'state', 'token', 'epoch', 'seq', 'version', 'attempt', 'first_output_at_ms',
        'cancel_requested_at_ms', 'logged')
    local answer = 'lost'
    if job[1] == 'running' and job[2] == token then
        local seq = tonumber(job[4])
        if tonumber(first) == seq then
            seq = seq + tonumber(size)
            if tonumber(size) > 0 then
                call('XADD', log, job[3] .. '-' .. first, 'a', job[6], 't', now_text, 'e', events)
            end
            local fields = {'seq', seq, 'version', job[5] + 1, 'logged', (job[9] or 0) + #events}
            if progress ~= '' then
                fields[#fields + 1] = 'progress'
                fields[#fields + 1] = progress
            end
            if usage ~= '' then
                fields[#fields + 1] = 'usage'
                fields[#fields + 1] = usage
            end
            if output == '1' and not job[7] then
                fields[#fields + 1] = 'first_output_at_ms'
                fields[#fields + 1] = now_text
            end
            call('HSET', key, unpack(fields))
            hint_job(id)
            changed = true
            answer = {seq, job[8] and 1 or 0}
        else
            answer = {seq, job[8] and 1 or 0, 0} -- whether it is a repeat, the caller finds out
        end
    end
    reply[#reply + 1] = answer
end
if changed then
    return reply_of_write(reply)
end
return reply_of_read(reply)
