#!lua flags=allow-oom
-- commit: running -> succeeded | failed | cancelled, for who holds the lease. (What is to run again: see move.lua.)
--
-- ARGV[3..]  for each commit six elements: id, token, kind, output, error, usage; of the last three, a text after '+', or
--            '' for none; before the '+' of a usage stands how long the account (see common.lua) in front of it is
-- Returns    for each the state that the job came to, or 'lost', or 'told', when somebody is to be told of its end and
--            nothing was done: see move.lua. The holder's repeat of its commit is answered again.
local reply = {0, 0, 0}
local ends = {succeeded = 'succeeded', failed = 'failed', cancelled = 'cancelled'}
local HINTED_BYTES = 256 -- of an output that goes along with the hint of its end: all who wait for any job get it

local left = {} -- what each session does not hold any more

local function finish(id, key, job, kind, output, err, usage)
    local head = parse_head(job[3])
    local state = ends[kind]
    if job[5] then
        state, err = 'cancelled', ''
    end
    local fields = {'state', state, 'version', job[6] + 1, 'seq', job[7] + 1, 'last_outcome', kind,
        'finished_at_ms', now_text}
    if job[5] then
        call('SREM', root .. 'asked:' .. job[4], id)
    end
    local held = inner(left, job[4])
    held[#held + 1] = id
    local size = #fields
    if output ~= '' then
        fields[size + 1], fields[size + 2] = 'output', string.sub(output, 2)
        size = size + 2
    end
    if err ~= '' then
        fields[size + 1], fields[size + 2] = 'error', string.sub(err, 2)
    end
    if job[10] ~= '1' then -- what an earlier attempt left
        call('HDEL', key, 'output', 'error')
    end
    if usage ~= '' then
        local length, from = string.match(usage, '^(%d+)%+()')
        fields[#fields + 1] = 'usage'
        fields[#fields + 1] = string.sub(usage, from + length)
        if length ~= '0' then
            note_usage(job[3], cjson.decode(string.sub(usage, from, from + length - 1)), true)
        end
    end
    local bytes = JOB_BYTES + head.size + (job[9] or 0) + math.max(#output - 1, 0) + math.max(#err - 1, 0)
    local expires = settle(state, head, id, bytes)
    if expires then
        fields[#fields + 1] = 'expires_at_ms'
        fields[#fields + 1] = expires
    end
    call('HSET', key, unpack(fields))
    count(head.queue, head.tenant, 'running', -1)
    count(head.queue, head.tenant, state, 1)
    local is_short = state == 'succeeded' and #output <= HINTED_BYTES and not string.find(output, '\n', 1, true)
    hint_end(id, is_short and string.sub(output, 2))
    return state
end

local changed = false
for i = 3, #ARGV, 6 do
    local id, token, kind, output, err, usage = unpack(ARGV, i, i + 5)
    local key = root .. 'job:' .. id
    local job = call('HMGET', key, 'state', 'token', 'head', 'session', 'cancel_requested_at_ms', 'version', 'seq',
        'last_outcome', 'logged', 'runs', 'hook')
    local answer = 'lost'
    if job[2] == token then
        if job[1] == 'running' and job[11] then
            answer = 'told'
        elseif job[1] == 'running' then
            answer = finish(id, key, job, kind, output, err, usage)
            changed = true
        elseif job[8] == kind then
            answer = job[1] or 'queued'
        end
    end
    reply[#reply + 1] = answer
end
if not changed then
    return reply_of_read(reply)
end
for session, ids in pairs(left) do
    call('SREM', root .. 'held:' .. session, unpack(ids))
end
save_settled()
save_counts()
save_usage()
hint_lifecycle()
return reply_of_write(reply)
