"""What tests of several folders share."""

import atexit
import os
import shutil
import sys
import tempfile

import hypothesis
import pytest
from absl import flags

# Whole programs compile the same models again and again: all processes of a session share what is compiled,
# however quickly it was. JAX reads these when it is imported. It writes without a lock: what another process
# has half written, or left so when it was killed, is packed, so that this shows, and is compiled anew.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="classact-tests-xla-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# And they compile for longer than they run: hardly optimised, that takes a third of it. They compute the
# same; `.ci/run` trains as users do.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()
# A silent cast and a silent added axis fail, in the processes of whole programs too.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"


# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("classact", deadline=None)
hypothesis.settings.load_profile("classact")


@pytest.fixture
def clean_flags():
    """absl's flags are one per process: those that a command defines are taken back."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["test"])


@pytest.fixture
def users_place(tmp_path, monkeypatch):
    """The directory in which a user starts, with modules of theirs, which the process forgets afterwards."""
    from classact.data import registry
    from classact.selection import policies

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(policies, "_POLICIES", dict(policies._POLICIES))
    monkeypatch.setattr(registry, "_OPENERS", dict(registry._OPENERS))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
