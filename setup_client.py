"""Packaging of classact-client: what a trainer needs of classact, as a wheel of its own.

`make client-wheel` builds it in dist/: of a copy of client/, in which this file is `setup.py`.

It is the folder client/ alone, as `classact.client`. The wheel classact has it too: have one of the two.
"""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(r'^__version__ = "(.+)"$', (_ROOT / "__init__.py").read_text(), re.MULTILINE)

setuptools.setup(
    name="classact-client",
    version=_VERSION[1] if _VERSION else "0",
    description="Batches that a selector of classact has chosen, for a training loop of your own.",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # Without classact's own __init__: `classact` is then a namespace.
    package_dir={"classact.client": "client"},
    packages=["classact.client"],
    # The oldest that were tried.
    install_requires=["numpy>=1.24", "pyzmq>=25"],
    extras_require={"torch": ["torch>=2.1"]},
)
