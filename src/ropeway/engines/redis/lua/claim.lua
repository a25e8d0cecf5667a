#!lua
-- claim: an idempotency key whose job lives in another partition, so that both cannot be one step. First the key is taken
-- for a job id, by all who try it alike; then the job is submitted, under that id; then the claim is confirmed. Who is
-- refused withdraws, and the claim goes with the last who tried. When its time is over it stays for as long as its job,
-- which only the caller can look for.
--
-- ARGV[3]  take, confirm or withdraw   ARGV[4] tenant and key, a space between   ARGV[5] the trier's own word
-- ARGV[6]  job id: that it is taken for; when it is confirmed, of the job that was the answer
-- ARGV[7]  fingerprint   ARGV[8] ms that the key stays claimed (these two to take it)
-- ARGV[3]  expired   ARGV[4] at most so many; or keep or forget, of one that is expired   ARGV[4] tenant and key
-- Returns  take: the job id, and 1 when its job has been made; or 'reused'
--          expired: for each two elements: tenant and key, and the job id
local name = ARGV[4]
local key = root .. 'claim:' .. name
local try = 'try:' .. (ARGV[5] or '')
local reply = {0, 0, 0}
local claims = root .. 'claims'

local function expired(limit)
    for _, each in ipairs(call('ZRANGEBYSCORE', claims, '-inf', integer(now), 'LIMIT', 0, limit)) do
        local made = call('HMGET', root .. 'claim:' .. each, 'apart', 'job')
        if made[1] then
            reply[#reply + 1] = each
            reply[#reply + 1] = made[2]
        end
    end
end

if ARGV[3] == 'expired' then
    expired(tonumber(ARGV[4]))
    return reply_of_read(reply)
end
local claim = call('HMGET', key, 'job', 'fingerprint', 'open')

if ARGV[3] == 'take' then
    if not claim[1] then
        local expires = integer(now + tonumber(ARGV[8]))
        call('HSET', key, 'job', ARGV[6], 'fingerprint', ARGV[7], 'expires', expires, 'open', 1, 'apart', 1)
        call('ZADD', claims, expires, name)
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
elseif ARGV[3] == 'keep' or ARGV[3] == 'forget' then
    local expires = tonumber(call('ZSCORE', claims, name))
    if expires and expires <= now and ARGV[3] == 'keep' then
        call('ZADD', claims, integer(now + 60000), name)
    elseif expires and expires <= now then
        call('DEL', key)
        call('ZREM', claims, name)
    end
elseif claim[1] then
    call('HDEL', key, try)
    if ARGV[3] == 'confirm' then
        call('HSET', key, 'job', ARGV[6])
        call('HDEL', key, 'open')
    elseif claim[3] and call('HLEN', key) == 5 then
        call('DEL', key)
        call('ZREM', claims, name)
    end
end
return reply_of_write(reply)
