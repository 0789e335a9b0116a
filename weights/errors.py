"""What is wrong with a checkpoint."""


class WeightsError(ValueError):
    """A checkpoint that cannot be read, or a model that cannot be written; one line says why."""
