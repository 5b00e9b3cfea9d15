"""Settings and fixtures that all tests share."""

import os
from pathlib import Path

import pytest

# TensorFlow reads this once, when it is imported: its start-up notes hide real output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
