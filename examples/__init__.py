"""Applications built on Ropeway's public API; each starts with `python -m examples.<name>`."""
