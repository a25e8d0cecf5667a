#!lua flags=allow-oom
-- spend: amounts out of buckets, of each call all that it wants or none (domain/bucket.py has the rule). A bucket is
-- kept until it is full, and goes by itself a minute after that, by this server's own clock.
--
-- ARGV[3]   what a bucket may miss of what is wanted
-- ARGV[4..] for each call: how many buckets, then for each of them: name, refill a second, capacity, what is wanted, and
--           what is taken in any case
-- Returns   for each call {1 when it got what it wants, else 0, then the level of each of its buckets}
local SPARE_MS = 60000
local FAR_MS = 10 * 365 * 86400000
local grain = tonumber(ARGV[3])
local reply = {0, 0, 0}
local place = 4

local function next_bucket()
    local bucket = {
        key = root .. 'bucket:' .. ARGV[place], per_s = tonumber(ARGV[place + 1]), capacity = tonumber(ARGV[place + 2]),
        wanted = tonumber(ARGV[place + 3]), forced = tonumber(ARGV[place + 4]),
    }
    place = place + 5
    local known = call('HMGET', bucket.key, 'level', 'at', 'full')
    bucket.at, bucket.level = clock_us, bucket.capacity
    if known[1] and tonumber(known[3]) > now then
        bucket.at = math.max(tonumber(known[2]), clock_us) -- a clock that went back refills nothing twice
        bucket.level = tonumber(known[1]) + (bucket.at - tonumber(known[2])) / 1000000 * bucket.per_s
    end
    bucket.level = math.min(math.min(bucket.level, bucket.capacity) - bucket.forced, bucket.capacity)
    return bucket
end

local function fits(bucket)
    return bucket.wanted <= 0 or bucket.level + grain >= math.min(bucket.wanted, bucket.capacity)
end

local function save(bucket)
    local missing = bucket.capacity - bucket.level
    if missing <= 0 then
        call('DEL', bucket.key)
        return
    end
    local full_in = math.ceil(math.min(missing / bucket.per_s * 1000, FAR_MS))
    local full = math.ceil(bucket.at / 1000) + full_in
    call('HSET', bucket.key, 'level', text(bucket.level), 'at', integer(bucket.at), 'full', integer(full))
    call('PEXPIRE', bucket.key, integer(full_in + SPARE_MS))
end

local function spend(count_of_buckets)
    local buckets, granted = {}, true
    for i = 1, count_of_buckets do
        buckets[i] = next_bucket()
        granted = granted and fits(buckets[i])
    end
    local answer = {granted and 1 or 0}
    for i, bucket in ipairs(buckets) do
        if granted then
            bucket.level = math.min(bucket.level - bucket.wanted, bucket.capacity)
        end
        save(bucket)
        answer[i + 1] = text(bucket.level)
    end
    return answer
end

while place <= #ARGV do
    place = place + 1
    reply[#reply + 1] = spend(tonumber(ARGV[place - 1]))
end
return reply_of_write(reply)
