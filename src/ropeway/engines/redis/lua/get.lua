#!lua flags=no-writes
-- get: jobs as they stand.
--
-- ARGV[3]   '1' to have their inputs too
-- ARGV[4..] ids
-- Returns   for each its fields and values, none for a job that is not there
local reply = {0, 0, 0}
for i = 4, #ARGV do
    local fields = call('HGETALL', root .. 'job:' .. ARGV[i])
    if ARGV[3] ~= '1' then
        for j = 1, #fields, 2 do
            if fields[j] == 'input' then
                fields[j + 1] = ''
            end
        end
    end
    reply[#reply + 1] = fields
end
return reply_of_read(reply)
