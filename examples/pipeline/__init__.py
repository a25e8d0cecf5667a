"""4,000 blocking requests in flight on one machine: `python -m examples.pipeline`."""
