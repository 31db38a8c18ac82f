"""What the tests of Caffe files share."""

import pytest

from tests.models.caffe.files import save
from unpool.models.caffe import load_caffemodel


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Load a .caffemodel given as layers or as bytes."""
    folder = tmp_path_factory.mktemp("load")

    def load(layers, *arguments, version=1):
        path = folder / "net.caffemodel"
        path.write_bytes(layers if isinstance(layers, bytes) else save(layers, version))
        return load_caffemodel(path, *arguments)

    return load
