"""What the tests of classifiers share."""

import pytest

from tests.classify.shapes import make


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    return make(tmp_path_factory.mktemp("shapes"), 10, 5)
