#!lua
-- claim: an idempotency key whose job lives in another partition, so that both cannot be one step. First the key is taken
-- for a job id, by all who try it alike; then the job is submitted, under that id; then the claim is confirmed. Who is
-- refused withdraws, and the claim goes with the last who tried.
--
-- ARGV[3]  take, confirm or withdraw   ARGV[4] tenant and key, a space between   ARGV[5] the trier's own word
-- ARGV[6]  job id   ARGV[7] fingerprint   ARGV[8] ms that the key stays claimed (these three to take it)
-- Returns  take: the job id, and 1 when its job has been made; or 'reused'
local name = ARGV[4]
local key = root .. 'claim:' .. name
local try = 'try:' .. ARGV[5]
local reply = {0, 0, 0}
local claim = call('HMGET', key, 'job', 'fingerprint', 'open')

if ARGV[3] == 'take' then
    if not claim[1] then
        local expires = integer(now + tonumber(ARGV[8]))
        call('HSET', key, 'job', ARGV[6], 'fingerprint', ARGV[7], 'expires', expires, 'open', 1)
        call('ZADD', root .. 'claims', expires, name)
        claim = {ARGV[6], ARGV[7], '1'}
    end
    if claim[2] ~= ARGV[7] then
        reply[4] = 'reused'
    else
        if claim[3] then
            call('HSET', key, try, 1)
        end
        reply[4] = claim[1]
        reply[5] = claim[3] and 0 or 1
    end
elseif claim[1] then
    call('HDEL', key, try)
    if ARGV[3] == 'confirm' then
        call('HDEL', key, 'open')
    elseif claim[3] and call('HLEN', key) == 4 then
        call('DEL', key)
        call('ZREM', root .. 'claims', name)
    end
end
return reply_of_write(reply)
