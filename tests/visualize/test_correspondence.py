"""Correspondence against a literal transcription of the paper, and with random signs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.errors import OptionError
from unpool.visualize.correspondence import correspond, sign_distances
from unpool.visualize.features import mean_color
from unpool.visualize.preprocessing import LoadedModel, Preprocessing

SIDE = 32


def delta(changes):
    """Delta_l = sum over i != j of H(sign(eps_i) - sign(eps_j)), and each of its terms."""
    terms = []
    for i in range(len(changes)):
        for j in range(len(changes)):
            if i != j:
                difference = np.sign(changes[i]) - np.sign(changes[j])
                terms.append(np.count_nonzero(difference) / difference.size)
    return sum(terms), terms


@pytest.fixture
def loaded(build):
    return LoadedModel(build("overlapping"), "small", Preprocessing(SIDE, SIDE))


@pytest.fixture
def files(write_images):
    return write_images(4)


def test_signs_against_the_paper():
    changes = np.random.default_rng(0).normal(size=(5, 300))
    changes[np.random.default_rng(1).random((5, 300)) < 0.4] = 0
    found = sign_distances(torch.from_numpy(changes))
    total, terms = delta(changes)
    assert float(found.sum()) == pytest.approx(total)
    assert found[~torch.eye(5, dtype=torch.bool)].tolist() == pytest.approx(terms)
    assert torch.equal(found, found.T)


def test_random_signs():
    rng = np.random.default_rng(0)
    off = ~torch.eye(6, dtype=torch.bool)
    for signs, wanted in (((-1, 0, 1), 2 / 3), ((-1, 1), 1 / 2)):
        changes = torch.from_numpy(rng.choice(signs, (6, 40_000)).astype(np.float32))
        assert sign_distances(changes)[off].mean() == pytest.approx(wanted, abs=0.003)


def test_against_the_paper(loaded, files):
    """Everything by hand: boxes in the middle square, covered, run, subtracted."""
    boxes = [(10, 8, 22, 20), (16, 12, 26, 30), (8, 4, 16, 12), (30, 20, 40, 34)]
    found = correspond(loaded, {"eye": dict(zip(files, boxes, strict=True))}, ["4", "8"], draws=0)
    scale, changes = SIDE / 40, {"4": [], "8": []}
    for path, box in zip(files, boxes, strict=True):
        crop = loaded.preprocessing.crop(np.asarray(Image.open(path)))
        covered = crop.copy()
        x0, x1 = (round((x - 4) * scale) for x in box[::2])
        y0, y1 = (round(y * scale) for y in box[1::2])
        covered[y0:y1, x0:x1] = mean_color(loaded)
        with torch.no_grad():
            for layer, list_ in changes.items():
                part = loaded.model[: int(layer) + 1]
                pair = [part(loaded.prepare([c])).numpy().ravel() for c in (crop, covered)]
                list_.append(pair[0] - pair[1])
    for layer, agreement in zip(("4", "8"), found.agreements, strict=True):
        total, terms = delta(changes[layer])
        assert (agreement.part, agreement.layer, agreement.pairs) == ("eye", layer, 12)
        assert agreement.mean == pytest.approx(total / 12, abs=1e-3)
        assert agreement.spread == pytest.approx(np.std(terms), abs=1e-3)
        assert 0 < agreement.mean < 1


def test_identical_images_agree(loaded, files):
    same = files[0].with_name("same.png")
    same.write_bytes(files[0].read_bytes())
    box = (10, 10, 25, 25)
    found = correspond(loaded, {"part": {files[0]: box, same: box}}, ["1", "8"], draws=4)
    agreements = {(a.part, a.layer): a for a in found.agreements}
    for layer in ("1", "8"):
        assert agreements["part", layer].mean == agreements["part", layer].spread == 0
        assert agreements["random", layer].mean > 0
        assert agreements["random", layer].pairs == 4 * 2


def test_saving(loaded, files, tmp_path):
    files[1].write_bytes(b"")
    parts = {
        "eye": dict.fromkeys(files, (10, 10, 16, 16)),
        "nose": dict.fromkeys(files[2:], (20, 20, 26.5, 30)),
    }
    seen = []
    found = correspond(loaded, parts, ["8"], draws=2, progress=lambda *step: seen.append(step[:2]))
    assert seen == [(i, 10) for i in range(1, 11)]
    assert found.images == [files[0], *files[2:]]
    assert list(found.failed) == [str(files[1])]
    image, text = found.save(tmp_path / "out")
    assert np.asarray(Image.open(image)).ndim == 3
    saved = json.loads(text.read_text())
    assert set(saved["boxes"]["nose"]) == {str(path) for path in files[2:]}
    assert [row[0] for row in found.table()] == ["part", "eye", "nose", "random"]
    again = correspond(loaded, parts, ["8"], draws=2)
    assert again.agreements == found.agreements
    assert correspond(loaded, parts, ["8"], draws=2, seed=1).agreements != found.agreements


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 49, 10), "which is 48 x 40 pixels; wanted x0, y0, x1, y1 with"),
        ((5, 5, 5, 9), "wanted x0, y0, x1, y1 with 0 <= x0 < x1 <= 48"),
        ((0, 0, 3, 40), "outside the middle square that the model sees"),
        ((0, 0, 3), "wanted x0, y0, x1, y1 in pixels"),
        ((0, 0, float("nan"), 9), "wanted x0, y0, x1, y1 in pixels"),
    ],
)
def test_invalid_boxes(loaded, files, box, message):
    with pytest.raises(OptionError, match=message):
        correspond(loaded, {"eye": {files[0]: (9, 9, 20, 20), files[1]: box}}, ["8"])


def test_too_few_images_and_unknown_layers(loaded, files):
    with pytest.raises(OptionError, match="in 1 readable images; wanted two or more"):
        correspond(loaded, {"eye": {files[0]: (9, 9, 20, 20)}}, ["8"])
    with pytest.raises(OptionError, match="did you mean '8'"):
        correspond(loaded, {"eye": dict.fromkeys(files, (9, 9, 20, 20))}, ["88"])


def test_damaged_weights_are_refused(loaded, files):
    """The signs of NaN never differ, which is not agreement."""
    with torch.no_grad():
        loaded.model[3].weight[0, 0] = float("nan")
    with pytest.raises(OptionError, match="layer '4' gives values that are not finite"):
        correspond(loaded, {"eye": dict.fromkeys(files, (9, 9, 20, 20))}, ["1", "4"])


def test_no_part_has_the_name_of_the_control(loaded, files):
    with pytest.raises(OptionError, match="got a part 'random', which is the control"):
        correspond(loaded, {"random": dict.fromkeys(files, (9, 9, 20, 20))}, ["8"])
