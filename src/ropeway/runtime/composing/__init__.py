"""Jobs that have to do with other jobs: they wait for them, submit them, and take them along when they end."""
