"""classact: train on the part of the data that a model can learn most from."""

__version__ = "0.1.0"
