#!lua
-- publish, tasks: the catalogue.
--
-- ARGV[3..]  name and card of each task to add, or none
-- Returns    the cards, when none was added
if #ARGV > 2 then
    for i = 3, #ARGV, 2 do
        call('HSET', root .. 'tasks', ARGV[i], ARGV[i + 1])
    end
    return reply_of_write({0, 0, 0})
end
local reply = {0, 0, 0}
for _, card in ipairs(call('HVALS', root .. 'tasks')) do
    reply[#reply + 1] = card
end
return reply_of_read(reply)
