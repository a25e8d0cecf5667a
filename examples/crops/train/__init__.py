"""Train the crop classifier, on a processor, in a minute or two: `python -m examples.crops.train`."""
