"""Crop analysis of uploaded satellite images: `python -m examples.crops`."""
