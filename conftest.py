"""What every docstring example may use without importing it."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(np=np, torch=torch)
