#!lua
-- set_queue: policies, field by field.
--
-- ARGV[3..]  for each queue: its name, how many elements follow, then fields with values ('' drops one)
-- Returns    for each queue its policy: {max_depth, max_depth_per_tenant, weights as JSON, paused,
--            max_running}, '' where it has none
local reply = {0, 0, 0}
local i = 3
while i <= #ARGV do
    local queue, size = ARGV[i], tonumber(ARGV[i + 1])
    local key = root .. 'queue:' .. queue
    call('SADD', root .. 'queues', queue)
    call('HSETNX', key, 'max_depth', 1000000)
    for j = i + 2, i + 1 + size, 2 do
        if ARGV[j + 1] == '' then
            call('HDEL', key, ARGV[j])
        else
            call('HSET', key, ARGV[j], ARGV[j + 1])
        end
    end
    i = i + 2 + size
    local policy = call('HMGET', key, 'max_depth', 'max_depth_per_tenant', 'weights', 'paused', 'max_running')
    reply[#reply + 1] = {policy[1], policy[2] or '', policy[3] or '', policy[4] or '', policy[5] or ''}
    wake(queue)
end
return reply_of_write(reply)
