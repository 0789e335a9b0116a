"""The figures' files, each a module."""

import importlib
import pkgutil

import pytest

from classact.experiments import figures

_OTHERS = {"parts", "halves", "drawing", "written"}
FIGURES = sorted({module.name for module in pkgutil.iter_modules(figures.__path__)} - _OTHERS)


@pytest.fixture(params=FIGURES)
def figure(request):
    """A figure's module."""
    return importlib.import_module(f"classact.experiments.figures.{request.param}")
