"""Segmentation against the authors' procedure, written out slowly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import unpool.segment.aggregate as aggregate
from tests.segment.tiny import CLASSES, MEAN, SIDE, photo
from unpool.errors import ImageError, OptionError, ShapeError, WeightsError
from unpool.models import CRFRNN, FCN, DeconvNet, prepare, save_pretrained
from unpool.ops.crf import CRF_PRESETS, DenseCRF, Kernel
from unpool.ops.meanfield import mean_field
from unpool.recipes.presets import Preset
from unpool.segment.aggregate import squares
from unpool.segment.segmenter import Segmenter
from unpool.segment.whole import WholeView
from unpool.vision.images import voc_palette
from unpool.vision.proposals import Proposals


@pytest.fixture
def proposed(monkeypatch):
    """Let certain boxes be proposed, in this order."""

    def propose(boxes):
        boxes = np.array(boxes, np.int32).reshape(-1, 4)
        found = Proposals(boxes, np.linspace(1, 0.5, len(boxes), dtype=np.float32))
        monkeypatch.setattr(aggregate, "propose", lambda image, method, count: found)

    return propose


def by_the_script(net, image, boxes, limit, least):
    """generate_EDeconvNet_CRF_results.m without the CRF, box by box (spec of the released code)."""
    height, width, _ = image.shape
    pad = 2 * max(height, width)
    padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), np.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    best = np.zeros((net.classes, height + 2 * pad, width + 2 * pad))
    done = 0
    for x0, y0, x1, y1 in boxes:
        side = max(1, int(np.floor(1.2 * max(x1 - x0, y1 - y0) + 0.5)))
        left = int(np.floor((x0 + x1 - side) / 2 + 0.5)) + pad
        top = int(np.floor((y0 + y1 - side) / 2 + 0.5)) + pad
        if side < least:
            continue
        crop = padded[top : top + side, left : left + side]
        crop = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float()
        if side != net.size:
            crop = F.interpolate(
                crop, (net.size, net.size), mode="bilinear", antialias=True
            ).round()
        bgr = crop.flip(1) - torch.tensor(MEAN).float().view(3, 1, 1)
        with torch.no_grad():
            scores = net(bgr)
        if side != net.size:
            scores = F.interpolate(scores, (side, side), mode="bilinear", antialias=True)
        view = best[:, top : top + side, left : left + side]
        np.maximum(view, scores[0].numpy(), out=view)
        done += 1
        if done == limit:
            break
    best = best[:, pad : pad + height, pad : pad + width]  # the script's slip of a pixel left out
    probability = np.exp(best) / np.exp(best).sum(0)
    return best.argmax(0), probability


# ---- instance-wise -------------------------------------------------------------------------------

EXACT = [(10, 8, 20, 35), (-3, 5, 24, 20), (40, 30, 67, 57), (60, 0, 87, 27), (12, 20, 39, 21)]
ANY = [(2, 3, 60, 40), (10, 8, 17, 30), (40, 20, 69, 60), (0, 0, 90, 64), (70, 50, 74, 53)]


def test_weights_may_want_the_mean_but_the_reference_is_the_maximum(net, proposed):
    image = photo(200, 200)
    proposed([(0, 0, 120, 110), (20, 30, 150, 160), (60, 60, 190, 180)])
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32", aggregate="mean")
    scores = {}
    for name, options in {
        "own": {},
        "reference": {"preset": "reference"},
        "max": {"aggregate": "max"},
        "mean": {"aggregate": "mean", "preset": "reference"},
    }.items():
        scores[name], _ = segmenter.predict(image, mode="instance", **options)[:2]
        how = "mean" if name in ("own", "mean") else "max"
        assert f"{how} of the scores" in segmenter.describe("instance", **options)
    np.testing.assert_array_equal(scores["own"], scores["mean"])
    np.testing.assert_array_equal(scores["reference"], scores["max"])
    assert (scores["own"] != scores["max"]).any()


def test_crops_are_merged_as_by_the_script(net, segmenter, proposed):
    """Squares as large as the network's input, so that nothing is resized."""
    image = photo(64, 90)
    proposed(EXACT)
    result = segmenter(image, proposals=50)
    labels, probability = by_the_script(net, image, EXACT, 50, 1)
    assert {tuple(b[2:] - b[:2]) for b in result.boxes} == {(SIDE, SIDE)}
    assert len(result.boxes) == 5
    assert np.isclose(result.probabilities, probability, atol=1e-4).mean() > 0.999
    assert (result.labels == labels).mean() > 0.999
    assert len(np.unique(labels)) > 1
    assert np.allclose(result.probabilities.sum(0), 1, atol=1e-5)


def test_crops_are_resized_as_by_the_script(net, segmenter, proposed):
    """Squares of all sizes; resizing rounds otherwise here and there, and moves a switch."""
    image = photo(64, 90, cell=12)
    proposed(ANY)
    result = segmenter(image)
    labels, probability = by_the_script(net, image, ANY, 50, 1)
    assert (result.labels == labels).mean() > 0.93
    assert np.abs(result.probabilities - probability).mean() < 0.03
    for axis in (0, 1):  # which the script's slip of a pixel would not pass
        assert (result.labels == np.roll(labels, 1, axis)).mean() < 0.9


@pytest.mark.parametrize(("limit", "least"), [(1, 1), (3, 1), (2, 40), (9, 60)])
def test_small_squares_are_passed_over_before_counting(net, segmenter, proposed, limit, least):
    image = photo(64, 90)
    proposed(ANY)
    sides = [int(np.floor(1.2 * max(b[2] - b[0], b[3] - b[1]) + 0.5)) for b in ANY]
    expected = [side for side in sides if side >= least][:limit]
    boxes = squares(image, Preset(least_side=least), count=limit)
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == expected
    assert (boxes[:, 3] - boxes[:, 1]).tolist() == expected
    result = segmenter(image, preset=Preset(least_side=least), proposals=limit)
    assert (result.boxes == boxes).all()
    labels, _ = by_the_script(net, image, ANY, limit, least)
    assert (result.labels == labels).mean() > 0.95


def test_the_reference_preset_drops_squares_under_112(proposed):
    proposed([(0, 0, 93, 10), (0, 0, 92, 92), (0, 0, 94, 94), (0, 0, 200, 20)])
    image = photo(100, 200)
    assert (squares(image, "reference")[:, 2:] - squares(image, "reference")[:, :2]).tolist() == [
        [112, 112], [113, 113], [240, 240]
    ]  # fmt: skip
    assert len(squares(image, "paper")) == 4
    assert len(squares(image, "reference", count=2)) == 2


def test_pixels_in_no_square_are_background(segmenter, proposed):
    image = photo(64, 90)
    proposed([(10, 8, 20, 35)])
    result = segmenter(image)
    (x0, y0, x1, y1) = result.boxes[0]
    outside = np.ones((64, 90), bool)
    outside[max(y0, 0) : y1, max(x0, 0) : x1] = False
    assert (result.labels[outside] == 0).all()
    assert np.allclose(result.probabilities[:, outside], 1 / 4)
    assert (result.labels[~outside] != 0).any()


def test_without_proposals_all_is_background(segmenter, proposed):
    proposed([])
    result = segmenter(photo(20, 30))
    assert not result.labels.any()
    assert result.boxes.shape == (0, 4)
    assert result.fractions() == {"background": 1.0}


def test_negative_scores_count_as_zero(net, segmenter, proposed):
    """Where every score is negative, the first class wins the tie."""
    with torch.no_grad():
        for model in (net, segmenter.model):
            model.score.weight.zero_()
            model.score.bias.copy_(torch.tensor([-3.0, -1.0, -2.0, -5.0]))
    proposed(EXACT)
    result = segmenter(photo(64, 90))
    assert not result.labels.any()
    assert np.allclose(result.probabilities, 1 / 4)


def test_the_batch_size_changes_nothing(segmenter):
    image = photo(60, 80)
    results = [segmenter(image, method="grid", proposals=7, batch=n) for n in (1, 3, 7, 100)]
    assert len(results[0].boxes) == 7
    for result in results[1:]:
        assert (result.labels == results[0].labels).all()
        assert np.allclose(result.probabilities, results[0].probabilities, atol=1e-5)


def test_progress_is_reported_after_each_batch(segmenter):
    reports = []
    segmenter(
        photo(60, 80), method="grid", proposals=7, batch=3,
        progress=lambda done, total, doing: reports.append((done, total)),
    )  # fmt: skip
    assert reports == [(3, 7), (6, 7), (7, 7)]


# ---- the dense CRF -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "instance"])
@pytest.mark.parametrize("crf", [*CRF_PRESETS, DenseCRF((Kernel(2, 1),), 3)], ids=str)
def test_the_crf_is_mean_field_on_the_probabilities(segmenter, mode, crf):
    image, instances = photo(24, 30), {"method": "grid", "proposals": 4}
    options = {"mode": mode, **(instances if mode == "instance" else {})}
    plain, refined = segmenter(image, **options), segmenter(image, crf=crf, **options)
    unary = -np.log(np.maximum(plain.probabilities, 1e-5))
    if crf == "deeplab1":
        unary = -plain.logits
    expected = mean_field(torch.from_numpy(unary), torch.from_numpy(image.copy()), crf).numpy()
    np.testing.assert_allclose(refined.probabilities, expected, atol=1e-6)
    assert (refined.labels == expected.argmax(0)).mean() > 0.999
    assert (refined.logits == plain.logits).all()


def test_a_crf_takes_images_that_may_not_be_written(segmenter):
    view = photo(24, 30)[:, ::-1]
    view.flags.writeable = False
    assert segmenter(view, mode="whole", crf="densecrf").labels.shape == (24, 30)


def test_a_crf_is_part_of_the_procedure(segmenter):
    assert segmenter.describe("whole").endswith("float32")
    assert segmenter.describe("whole", crf="deeplab").endswith("float32, dense CRF deeplab")
    assert segmenter.describe("instance", crf="deeplab").endswith("float32, dense CRF deeplab")


def test_refuses_crfs(segmenter):
    with pytest.raises(OptionError, match="got CRF preset 'best'; the choices are edeconvnet, "):
        segmenter(photo(20, 20), mode="whole", crf="best")


# ---- the segmenter itself ------------------------------------------------------------------------


def test_the_network_given_stays_as_it_is(filled, bf16):
    for eps in (1e-9, None):
        net = filled(DeconvNet(4, ((1, 6), (1, 8)), None, SIDE, eps)).train()
        Segmenter(net, CLASSES, device="cpu", precision="bf16")(photo(20, 30))
        assert net.training
        assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_bfloat16_gives_nearly_the_same_labels(net, segmenter, bf16):
    low = Segmenter(net, CLASSES, device="cpu", precision="bf16", mode="whole")
    assert low.dtype == torch.bfloat16
    assert low.model.score.weight.dtype == torch.float32
    image = photo(60, 80, cell=12)
    a, b = low(image), segmenter(image, mode="whole")
    assert (a.labels == b.labels).mean() > 0.9


def test_saved_weights_bring_their_options(net, tmp_path):
    card = {
        "classes": CLASSES, "palette": [[1, 2, 3], [4, 5, 6]], "mode": "instance",
        "long_side": 64, "input": {"mean": [1.0, 2.0, 3.0]},
    }  # fmt: skip
    save_pretrained(net, tmp_path, card)
    segmenter = Segmenter.from_pretrained(tmp_path, device="cpu")
    assert (segmenter.classes, segmenter.mode, segmenter.long_side) == (CLASSES, "instance", 64)
    assert segmenter.mean == (1.0, 2.0, 3.0)
    assert segmenter.palette[:2].tolist() == card["palette"]
    assert (segmenter.palette[2:] == voc_palette()[2:]).all()
    assert Segmenter.from_pretrained(tmp_path, mode="whole").mode == "whole"
    save_pretrained(net, tmp_path, {})
    plain = Segmenter.from_pretrained(tmp_path)
    assert plain.classes == ["class 0", "class 1", "class 2", "class 3"]
    assert (plain.mode, plain.long_side) == ("whole", 320)


def test_weights_still_to_be_trained_are_refused(net, tmp_path):
    save_pretrained(net, tmp_path, {"ready": False, "note": "fresh network: train it before use"})
    with pytest.raises(WeightsError, match="a fresh network: train it before use"):
        Segmenter.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "got 2 class names for a network of 4 classes"),
        ({"mode": "both"}, "got mode 'both'; the choices are whole, instance"),
        ({"precision": "fp16"}, "got precision 'fp16'; did you mean 'bf16'"),
        ({"device": "tpu"}, "got device 'tpu'; this machine has cpu"),
        ({"device": "cuda:99"}, "got device 'cuda:99'; this machine has cpu"),
        ({"device": "mps"}, "got device 'mps'; this machine has cpu"),
    ],
)
def test_refuses_options(net, options, message):
    with pytest.raises(OptionError, match=message):
        Segmenter(net, **{"classes": CLASSES, **options})


def test_a_network_for_whole_images_has_one_mode(filled):
    net = filled(FCN(4, ((1, 6), (1, 8)), None, stride=4, pad=1))
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32", long_side=48)
    assert segmenter(photo(20, 30)).labels.shape == (20, 30)
    assert segmenter.measured_modes == ("whole",)
    for refused in (segmenter.describe, lambda mode: segmenter(photo(20, 30), mode=mode)):
        with pytest.raises(OptionError, match="got mode='instance' for weights of FCN"):
            refused("instance")


def test_a_crf_rnn_sees_the_colors_in_float32(filled, bf16):
    net = filled(CRFRNN(4, ((1, 6), (1, 8), (1, 8)), None, stride=4, pad=1))
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="bf16", long_side=48)
    x = prepare(torch.from_numpy(photo(36, 48)[None].copy()))
    with torch.inference_mode():
        scores = segmenter.model.net(x.bfloat16())
        expected = segmenter.model.crf(scores, x, 10)
    found = segmenter.predict(photo(36, 48)).logits
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-4)


def test_a_second_crf_after_that_of_a_crf_rnn_is_described():
    net = CRFRNN(4, ((1, 6), (1, 8), (1, 8)), None, stride=4, pad=1)
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32", long_side=48)
    assert segmenter.describe() == "whole images, long side 48, float32, CRF in the network"
    assert segmenter.describe(crf="deeplab1") == f"{segmenter.describe()}, dense CRF deeplab1"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9, 2), np.uint8),
        np.zeros((9, 9, 5), np.uint8),
        np.zeros((2, 9, 9, 3), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((9, 0, 3), np.uint8),
    ],
)
@pytest.mark.parametrize("mode", ["whole", "instance"])
def test_refuses_images(segmenter, image, mode):
    with pytest.raises(ShapeError, match=r"got an array of \(.*; wanted \(H, W, 3\), .* not empty"):
        segmenter(image, mode=mode)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "got mode 'both'; the choices are whole, instance"),
        ({"preset": "fast"}, "got preset 'fast'; the choices are paper, reference"),
        ({"method": "selective"}, "got the proposal method 'selective'"),
        ({"proposals": 0}, "got proposals=0; wanted 1 or more"),
        ({"batch": 0}, "got batch=0; wanted 1 or more"),
    ],
)
def test_refuses_ways(segmenter, options, message):
    with pytest.raises(OptionError, match=message):
        segmenter(photo(40, 40), **options)


def test_a_missing_file_is_named_and_a_segmentation_is_one_line(filled):
    segmenter = Segmenter(filled(DeconvNet(2, ((1, 4),), None, 32)), ["ground", "cat"])
    with pytest.raises(ImageError, match=r"cat\.jpg"):
        segmenter("cat.jpg")
    found = repr(segmenter(np.zeros((20, 30, 3), np.uint8)))
    assert found.startswith("Segmentation(30 x 20, ")
    assert len(found) < 60


def test_exact_takes_the_network_as_it_is(filled):
    """Its scores are those of the network, bit for bit, and they differ from bfloat16's."""
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    image = photo(40, 40)
    exact = Segmenter(net, ["background", "cat", "dog"], exact=True)
    scores, _ = exact.predict(image, mode="whole")[:2]
    with torch.inference_mode():
        view = WholeView(net, image, 320)
        expected = view.paste(net(prepare(torch.from_numpy(view.batch))).numpy())
    assert np.array_equal(scores, expected)
    assert "float32, exact" in exact.describe("whole")
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in exact.model.modules())
    with pytest.raises(OptionError, match="got precision bf16 and exact"):
        Segmenter(net, ["background", "cat", "dog"], exact=True, precision="bf16")


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("mode", ["whole", "instance"])
@pytest.mark.parametrize("value", [float("nan"), 3e38])
def test_scores_that_are_not_finite_give_no_labels(net, exact, mode, value):
    with torch.no_grad():
        net.score.weight[1] = value
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32", exact=exact, mode=mode)
    with pytest.raises(WeightsError, match="got scores with NaN or infinity"):
        segmenter(photo(40, 50))


def test_more_classes_than_a_mask_can_hold():
    net = DeconvNet(257, ((1, 4),), None, SIDE)
    with pytest.raises(OptionError, match="got 257 classes; wanted at most 256"):
        Segmenter(net, [str(i) for i in range(257)])
