#!lua flags=no-writes
-- all: a tenant's jobs, newest first.
--
-- ARGV[3]  tenant   ARGV[4] below this number, 0 for the newest   ARGV[5] at most so many
-- Returns  for each two elements: number and id
local reply = {0, 0, 0}
local from = ARGV[4] == '0' and '+' or '(' .. ARGV[4] .. '-0'
for _, entry in ipairs(call('XREVRANGE', root .. 'all:' .. ARGV[3], from, '-', 'COUNT', ARGV[5])) do
    reply[#reply + 1] = string.match(entry[1], '^(%d+)')
    reply[#reply + 1] = entry[2][2]
end
return reply_of_read(reply)
