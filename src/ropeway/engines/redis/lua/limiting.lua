-- Limits, for the scripts that meet jobs which have some (domain/limit.py has the rules; these follow them step by step).
--
-- `limits` is a hash of what is known of each key, as one text: `running level at paused policy`; level '-' when its bucket
-- is full, policy '-' or `max_running,per_s,burst`. `parked:<key>` are the jobs that wait under it, by rank; `calls` when
-- those are looked at again; `idle` when a key is forgotten of which nothing runs, waits or is set.
--
-- Made when the first such job is met: a script that meets none pays for one function.
local limiting
local function limiter()
    if limiting then
        return limiting
    end
    limiting = {calls = {}}
    local FOR_A_SLOT, GRAIN, FAR = -1, 1e-6, 1e15
    local KEPT_MS, CALL_AGAIN_MS = 86400000, 1000
    local CALLED_AT_ONCE, LOOK = 256, 32 -- a script stops the server for as long as it runs
    local states, parsed = {}, {}

    local function known(word)
        return word ~= '-' and tonumber(word) or nil
    end

    local function shown(number)
        return number and text(number) or '-'
    end

    -- A job's limits as they lie in its hash: for each `key max_running per_s burst amount`, '-' for none.
    function limiting.parse(words)
        local found = parsed[words]
        if not found then
            found = {}
            for key, most, per_s, burst, amount in string.gmatch(words, '(%S+) (%S+) (%S+) (%S+) (%S+)') do
                found[#found + 1] = {
                    key = key, max_running = known(most), per_s = known(per_s), burst = known(burst), amount = tonumber(amount),
                }
            end
            parsed[words] = found
        end
        return found
    end

    -- Who of those that are parked goes first.
    local function look_at_first(state)
        local first = call('ZRANGE', root .. 'parked:' .. state.key, 0, 0, 'WITHSCORES')
        state.ticket, state.rank = first[1], tonumber(first[2])
    end

    local function is_idle(state)
        return state.running == 0 and not state.policy and not state.ticket
    end

    local function policy_from(words)
        if words ~= '-' then
            local most, per_s, burst = string.match(words, '^([^,]+),([^,]+),([^,]+)$')
            return {max_running = known(most), per_s = known(per_s), burst = known(burst), words = words}
        end
    end

    local function state_of(key)
        local state = states[key]
        if not state then
            local row = call('HGET', root .. 'limits', key) or '0 - 0 0 -'
            local running, level, at, paused, policy = string.match(row, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
            state = {
                key = key, running = tonumber(running), level = known(level), at = tonumber(at), paused = tonumber(paused),
                policy = policy_from(policy),
            }
            look_at_first(state)
            state.was_idle = is_idle(state)
            states[key] = state
        end
        return state
    end

    -- What the bucket holds now; nil when it is full. A clock that went back refills nothing.
    local function level_of(state, rule)
        if rule.per_s and state.level then
            local level = math.min(state.level + math.max(now - state.at, 0) / 1000 * rule.per_s, rule.burst)
            return level < rule.burst and level or nil
        end
    end

    local function hold(state, rule, level)
        state.paused = state.paused > now and state.paused or 0
        state.at = level and math.max(now, state.at) or 0
        state.level = level
        state.full = level and state.at + math.ceil(math.min((rule.burst - level) / rule.per_s * 1000, FAR))
        state.changed = true
    end

    -- So much more into the bucket, never above its brim.
    local function give(limit, state, amount)
        local rule = state.policy or limit
        local level = level_of(state, rule)
        if rule.per_s and (level or amount < 0) then
            level = (level or rule.burst) + amount
            level = level < rule.burst and level or nil
        end
        hold(state, rule, level)
    end

    -- When a job may start: nil for now, a time, or FOR_A_SLOT.
    local function wait_for(limit, state)
        local rule = state.policy or limit
        if state.paused > now then
            return state.paused
        elseif rule.max_running and state.running >= rule.max_running then
            return FOR_A_SLOT
        end
        local level = level_of(state, rule)
        local missing = level and math.min(limit.amount, rule.burst) - level
        if missing and missing > GRAIN then
            return now + math.max(1, math.ceil(math.min(missing / rule.per_s * 1000, FAR) - GRAIN))
        end
    end

    local function look_again(state, at)
        if at ~= FOR_A_SLOT and (not state.due or at < state.due) then
            state.due = at
            state.changed = true
        end
    end

    -- The key of the first limit that a job of this place does not fit.
    local function blocking(limits, rank, ticket)
        for _, limit in ipairs(limits) do
            local state = state_of(limit.key)
            local at = wait_for(limit, state)
            if at then
                look_again(state, at)
                return limit.key
            elseif state.ticket and (state.rank < rank or (state.rank == rank and state.ticket < ticket)) then
                return limit.key
            end
        end
    end

    -- A job that is out of its line waits under a key.
    local function park(key, rank, ticket, head, job, version)
        local state = state_of(key)
        call('ZADD', root .. 'parked:' .. key, rank, ticket)
        rank = tonumber(rank)
        if not state.ticket or rank < state.rank or (rank == state.rank and ticket < state.ticket) then
            state.rank, state.ticket = rank, ticket
        end
        state.changed = true
        call('HSET', job, 'parked', key, 'version', integer(version + 1))
        local queue, tenant = string.match(head, '^(%S+) (%S+)')
        count(queue, tenant, 'parked', 1)
        hint_job(string.sub(ticket, 14))
    end

    local function begin(limit, state)
        state.running = state.running + 1
        give(limit, state, -limit.amount)
    end

    -- Whether a job that is out of its line has room under its limits, and takes it; else it is parked.
    function limiting.admit(words, rank, ticket, head, job, version)
        local limits = limiting.parse(words)
        local full = blocking(limits, tonumber(rank), ticket)
        if full then
            park(full, rank, ticket, head, job, version)
            return false
        end
        for _, limit in ipairs(limits) do
            begin(limit, state_of(limit.key))
        end
        return true
    end

    -- An attempt ended, and so much goes back into each bucket.
    function limiting.finish(limits, given)
        for i, limit in ipairs(limits) do
            local state = state_of(limit.key)
            state.running = math.max(state.running - 1, 0)
            give(limit, state, tonumber(given[i]))
            limiting.calls[limit.key] = true
        end
    end

    -- A parked job waits no more.
    function limiting.leave(key, head, ticket)
        if call('ZREM', root .. 'parked:' .. key, ticket) == 1 then
            count(head.queue, head.tenant, 'parked', -1)
            look_at_first(state_of(key))
            limiting.calls[key] = true
            states[key].changed = true
        end
    end

    local function limit_of(id, key)
        for _, limit in ipairs(limiting.parse(call('HGET', root .. 'job:' .. id, 'limits') or '')) do
            if limit.key == key then
                return limit
            end
        end
        return {amount = 0} -- it is none of its limits: nothing holds it there
    end

    local function call_back(key, rank, ticket)
        local id = string.sub(ticket, 14)
        local job = root .. 'job:' .. id
        local found = call('HMGET', job, 'head', 'version')
        call('ZREM', root .. 'parked:' .. key, ticket)
        if found[1] then
            local queue, tenant = string.match(found[1], '^(%S+) (%S+)')
            call('ZADD', root .. 'ready:' .. queue, rank, ticket)
            call('HDEL', job, 'parked')
            call('HSET', job, 'version', integer((found[2] or 1) + 1))
            count(queue, tenant, 'parked', -1)
            wake(queue)
            hint_job(id)
        end
    end

    -- Those of the parked who would fit go back into their lines, the best-ranked first. How many.
    local function call_some(key)
        local state, called = state_of(key), 0
        local after = {key = key, running = state.running, level = state.level, at = state.at, paused = state.paused,
            policy = state.policy}
        call('ZREM', root .. 'calls', key)
        state.due, state.changed = nil, true
        local waits = not state.ticket and FOR_A_SLOT
        while not waits and called < CALLED_AT_ONCE do
            local first = call('ZRANGE', root .. 'parked:' .. key, 0, LOOK - 1, 'WITHSCORES')
            for i = 1, #first, 2 do
                local limit = limit_of(string.sub(first[i], 14), key)
                waits = wait_for(limit, after)
                if waits then
                    look_again(state, waits)
                    break
                end
                call_back(key, first[i + 1], first[i])
                begin(limit, after)
                called = called + 1
            end
            waits = waits or #first == 0 and FOR_A_SLOT
        end
        look_at_first(state)
        if state.ticket and called > 0 then -- whoever was called and does not come is waited for no longer than that
            look_again(state, waits and now + CALL_AGAIN_MS or now)
        end
        return called
    end

    local function save(key, state)
        local idle = is_idle(state)
        if idle and not state.level and state.paused <= now then
            call('HDEL', root .. 'limits', key)
            call('ZREM', root .. 'idle', key)
            return
        end
        call('HSET', root .. 'limits', key, integer(state.running) .. ' ' .. shown(state.level) .. ' ' .. integer(state.at)
            .. ' ' .. integer(state.paused) .. ' ' .. (state.policy and state.policy.words or '-'))
        if idle then
            local full = state.level and (state.full or now + KEPT_MS) or 0
            call('ZADD', root .. 'idle', integer(math.max(full, state.paused)), key)
        elseif state.was_idle then
            call('ZREM', root .. 'idle', key)
        end
        if state.due then
            call('ZADD', root .. 'calls', 'LT', integer(state.due), key)
            hint('upkeep')
        end
    end

    -- Before the counts are saved: call back who fits under the keys that have changed, and write what is known of each.
    -- How many were called.
    function limiting.settle()
        local called = 0
        for key in pairs(limiting.calls) do
            called = called + call_some(key)
        end
        for key, state in pairs(states) do
            if state.changed then
                save(key, state)
            end
        end
        return called
    end

    function limiting.set(key, words)
        local state = state_of(key)
        state.policy = policy_from(words)
        state.changed = true
        limiting.calls[key] = true
    end

    -- What a provider told: so much is left (nil: it did not say), and nothing is taken for a time. It fills no bucket.
    function limiting.signal(limit, left, pause)
        local state = state_of(limit.key)
        local rule = state.policy or limit
        local level = level_of(state, rule)
        if left and rule.per_s then
            level = math.min(level or rule.burst, left)
            level = level < rule.burst and level or nil
        end
        state.paused = math.max(state.paused, pause > 0 and now + pause or 0)
        hold(state, rule, level)
    end

    -- A count that was found to be wrong by this.
    function limiting.correct(key, step)
        local state = state_of(key)
        state.running = math.max(state.running + step, 0)
        state.changed = true
        limiting.calls[key] = true
    end

    return limiting
end
