"""Where jobs live: the protocol in `base`, and one room an engine. `connect` turns a URL into one."""
