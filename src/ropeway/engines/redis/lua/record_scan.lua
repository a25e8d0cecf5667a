#!lua flags=no-writes
-- scan: some records of a tenant and kind, by id.
--
-- ARGV[3]  kind and tenant (a space between)   ARGV[4] the id before the first, '' to begin   ARGV[5] at most so many
-- ARGV[6]  no more once they come to so many bytes
-- Returns  the last id looked at, '' when that was the last of all; then for each two elements: id and row
local reply = {0, 0, 0, ''}
local most, bytes = tonumber(ARGV[6]), 0
local from = ARGV[4] == '' and '-' or '(' .. ARGV[4]
local ids = call('ZRANGEBYLEX', root .. 'ids:' .. ARGV[3], from, '+', 'LIMIT', 0, ARGV[5])
for i, id in ipairs(ids) do
    local row = call('HGET', root .. 'rec:' .. ARGV[3], id)
    local expires = row and string.match(row, '^%d+ %d+ (%S+) ')
    if row and (expires == '-' or tonumber(expires) > now) then
        reply[#reply + 1] = id
        reply[#reply + 1] = row
        bytes = bytes + #row
    end
    if bytes >= most or (i == #ids and #ids == tonumber(ARGV[5])) then
        reply[4] = id
        break
    end
end
return reply_of_read(reply)
