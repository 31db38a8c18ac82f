"""The stages of a segmentation are timed."""

from tests.segment.tiny import photo
from unpool.segment.timings import measuring


def test_stages_are_timed(segmenter):
    with measuring() as seconds:
        segmenter(photo(40, 40), mode="instance", proposals=3, crf="deeplab")
    stages = ["resizing", "proposals", "crops", "network", "pasting", "labels", "CRF"]
    assert list(seconds) == stages
    assert min(seconds.values()) > 0
    with measuring() as none:
        pass
    assert none == {}
