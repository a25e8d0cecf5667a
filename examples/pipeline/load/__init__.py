"""A load test of the pipeline: `python -m examples.pipeline.load --requests 4000`."""
