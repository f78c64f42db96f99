"""What the tests of the backtest share."""

import importlib
import warnings

import pytest


@pytest.fixture(scope="session")
def engine() -> None:
    """Evidently, imported once; its import warns of numpy.core, and here every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("retrainer.adapters.evidently_report")
