"""What tests of several folders share."""

import pytest
from absl import flags


@pytest.fixture
def clean_flags():
    """absl's flags are one per process: those that a command defines are taken back."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["test"])
