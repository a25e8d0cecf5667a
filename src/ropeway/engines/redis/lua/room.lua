#!lua
-- room: whether jobs could be stored. The server refuses this when it would refuse a submit: its memory is full, or its
-- disk cannot be written. It writes nothing.
return reply_of_read({0, 0, 0})
