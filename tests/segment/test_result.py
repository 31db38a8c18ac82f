"""The confidence of results, and their files in the formats of other tools."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.segment.test_postprocessing import scene, softmax
from tests.segment.tiny import CLASSES, photo
from unpool.errors import ImageError, OptionError
from unpool.formats.coco import to_coco
from unpool.formats.geojson import to_geojson
from unpool.formats.label_studio import to_label_studio
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import find_objects
from unpool.formats.yolo import to_yolo
from unpool.segment.confidence import EXCLUDED
from unpool.segment.postprocessing import postprocess
from unpool.segment.result import Segmentation
from unpool.segment.scores import read_scores
from unpool.vision.boxes import reduced_size
from unpool.vision.images import read_mask, voc_palette, write_image


def test_the_formats_of_other_tools_are_those_of_the_labels(tmp_path):
    image, scores = scene()
    found = postprocess(image, scores, CLASSES)
    objects = find_objects(found.labels, CLASSES, found.probabilities)
    assert found.objects().scores.tolist() == objects.scores.tolist()
    assert found.to_coco("a/b.jpg") == to_coco(objects, "a/b.jpg")
    assert found.to_labelme("b.jpg", tolerance=1) == to_labelme(objects, "b.jpg", tolerance=1)
    assert found.to_yolo(tolerance=1) == to_yolo(objects, tolerance=1)
    assert found.to_geojson(tolerance=1) == to_geojson(objects, tolerance=1)
    assert found.to_label_studio("/b.jpg") == to_label_studio(objects, "/b.jpg")
    assert found.to_coco()["images"][0]["file_name"] == "image"
    path = tmp_path / "my cat.png"
    write_image(path, image)
    path.with_suffix(".pgw").write_text("2 0 0 -2 1 -1")
    read = replace(found, source=path)
    assert read.to_coco()["images"][0]["file_name"] == "my cat.png"
    assert read.to_labelme()["imagePath"] == "my cat.png"
    assert (
        read.to_label_studio()["data"]["image"]
        == f"/data/local-files/?d={tmp_path.name}/my%20cat.png"
    )
    assert "my cat.pgw" in read.to_geojson()["coordinate_system"]


def test_the_mask_may_be_left_out(tmp_path):
    found = postprocess(*scene(), CLASSES)
    found.save(tmp_path / "a.png", mask=False, scores=True)
    assert {p.name for p in tmp_path.iterdir()} == {"a.overlay.jpg", "a.scores.npz"}


def test_the_confidence_is_the_probability_of_the_label():
    image, scores = scene()
    found = postprocess(image, scores, CLASSES)
    np.testing.assert_allclose(found.confidence, found.probabilities.max(0), atol=1e-6)
    shares = softmax(scores / 2)
    warm = postprocess(image, scores, CLASSES, temperature=2.0)
    np.testing.assert_array_equal(warm.labels, found.labels)
    np.testing.assert_allclose(warm.confidence, shares.max(0), atol=1e-6)
    assert warm.to_dict()["confidence"] == pytest.approx(shares.max(0).mean())


def test_a_class_that_is_excluded_may_be_there_after_all():
    image, scores = scene()
    found = postprocess(image, scores, CLASSES, presence_threshold=0.9)
    assert 3 not in np.unique(found.labels)
    weight = np.exp(scores) * np.float32([1, 1, 1, EXCLUDED])[:, None, None]
    expected = np.exp(scores[:3]).max(0) / weight.sum(0)
    np.testing.assert_allclose(found.confidence, expected, atol=1e-6)
    less = softmax(scores[:3]).max(0)
    more = np.take_along_axis(softmax(scores), found.labels[None].astype(int), 0)[0]
    assert (more <= found.confidence + 1e-6).all()
    assert (found.confidence <= less + 1e-6).all()
    assert (found.confidence < less - 0.01).any()


def test_the_confidence_with_a_crf_is_the_networks():
    image, scores = scene()
    found = postprocess(image, scores, CLASSES, crf="densecrf")
    assert (found.labels != scores.argmax(0)).any()
    own = np.take_along_axis(softmax(scores), found.labels[None].astype(int), 0)[0]
    np.testing.assert_allclose(found.confidence, own, atol=1e-6)


def test_the_confidence_of_a_large_image():
    """Scores of the reduced size: each pixel has the confidence that lies around it."""
    image = np.zeros((1500, 3000, 3), np.uint8)
    height, width = reduced_size((1500, 3000))
    scores = np.zeros((2, height, width), np.float32)
    scores[1, :, : width // 2], scores[0, :, width // 2 :] = 1, 3
    found = postprocess(image, scores, CLASSES[:2], void_below=0.8)
    assert found.confidence.shape == found.labels.shape == (1500, 3000)
    np.testing.assert_allclose(found.confidence[:, :1400], softmax(scores)[1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.confidence[:, 1600:], softmax(scores)[0, 0, -1], atol=1e-6)
    assert (found.labels[:, :1400] == 255).all()
    assert (found.labels[:, 1600:] == 0).all()


def test_a_result_without_logits_has_no_confidence():
    image, scores = scene()
    found = replace(postprocess(image, scores, CLASSES), logits=None)
    assert "confidence" not in found.to_dict()
    with pytest.raises(OptionError, match="without logits"):
        _ = found.confidence


@pytest.fixture
def result():
    labels = np.zeros((10, 20), np.uint8)
    labels[:, :5], labels[0, 19] = 2, 1
    scores = np.eye(4, dtype=np.float32)[labels].transpose(2, 0, 1)
    return Segmentation(photo(10, 20), labels, scores, CLASSES, voc_palette())


def test_shares(result):
    assert result.fractions() == {"background": 149 / 200, "dog": 50 / 200, "cat": 1 / 200}
    assert list(result.fractions()) == ["background", "dog", "cat"]
    assert json.dumps(result.fractions())


def test_save(result, tmp_path):
    path = result.save(tmp_path / "new" / "a.b.png")
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.b.overlay.jpg", "a.b.png"]
    with Image.open(path) as mask:
        assert mask.mode == "P"
        assert (np.asarray(mask) == result.labels).all()
        colors = np.array(mask.getpalette()).reshape(-1, 3)
        assert (colors[:4] == voc_palette()[:4]).all()
    assert (read_mask(path) == result.labels).all()
    with Image.open(path.with_name("a.b.overlay.jpg")) as overlay:
        assert overlay.format == "JPEG"
        assert overlay.size[0] >= 20
    result.save(tmp_path / "b.png", overlay=False)
    assert not (tmp_path / "b.overlay.jpg").exists()
    with pytest.raises(OptionError, match=r"got the path .*a\.jpg; masks are written as \.png"):
        result.save(tmp_path / "a.jpg")


def test_an_overlay_too_long_for_a_jpeg_is_refused_with_the_cure(tmp_path):
    labels = np.zeros((1, 65_501), np.uint8)
    image, probabilities = np.zeros((1, 65_501, 3), np.uint8), np.ones((4, 1, 1), np.float32)
    long = Segmentation(image, labels, probabilities, CLASSES, voc_palette())
    with pytest.raises(ImageError, match=r"65501 x 1 pixels; overlays .*: pass overlay=False"):
        long.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert (read_mask(long.save(tmp_path / "a.png", overlay=False)) == labels).all()


def test_scores_are_saved_beside_the_mask(segmenter, tmp_path):
    result = segmenter(photo(20, 30), mode="whole")
    path = result.save(tmp_path / "a.b.png", overlay=False, scores=True)
    assert {p.name for p in tmp_path.iterdir()} == {"a.b.png", "a.b.scores.npz"}
    found = read_scores(path.with_name("a.b.scores.npz"))
    np.testing.assert_allclose(found.values, result.logits, rtol=1e-3, atol=1e-3)
    assert found.classes == CLASSES
    again = postprocess(result.image, found.values, found.classes, found.palette)
    assert (again.labels == result.labels).mean() > 0.99


def test_overlay_leaves_the_image_alone(result):
    before = result.image.copy()
    painted = result.overlay()
    assert painted.dtype == np.uint8
    assert painted.ndim == 3
    assert (result.image == before).all()
