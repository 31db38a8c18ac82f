"""`unpool segment` with networks of several kinds: ensembles, FCNs, tiles, samples."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.files import CLASSES, photo, save
from unpool.models import SegNet, save_pretrained
from unpool.recipes.presets import DenseCRF, Kernel
from unpool.segment.ensemble import EDeconvNet, load
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import read_mask


@pytest.mark.parametrize("ensemble", [None, "product"])
@pytest.mark.parametrize("mode", [None, "whole"])
def test_the_ensemble(run, pair, ensemble, mode):
    image = np.asarray(Image.open(save("cat.png")).convert("RGB"))
    args = ["--preset=edeconvnet", "--device=cpu", "--precision=fp32", "--json"]
    args += [f"--ensemble={ensemble}"] * (ensemble is not None) + [f"--mode={mode}"] * bool(mode)
    code, out, err = run("segment", "cat.png", "--weights", pair, *args)
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    both = EDeconvNet.from_pretrained(
        pair, ensemble=ensemble or "mean", device="cpu", precision="fp32"
    )
    assert (read_mask(record["mask"]) == both(image, mode=mode).labels).all()
    assert record["description"] == both.describe(mode)
    assert record["description"].startswith(f"EDeconvNet: {ensemble or 'mean'} of DeconvNet (")
    assert ("instance-wise" in record["description"]) == (mode is None)


def test_options_of_the_ensemble(run, pair):
    save("cat.png")
    args = ["segment", "cat.png", "--weights", pair, "--preset=edeconvnet", "--json"]
    args += ["--proposals=3", "--method=grid", "--batch=2", "--crf=edeconvnet"]
    description = json.loads(run(*args)[1][0])["description"]
    assert "3 grid proposals, preset paper" in description
    assert description.endswith("; dense CRF edeconvnet")


def test_the_crf_of_the_weights(run, weights):
    """As the card has it; without one `--crf auto` changes nothing."""
    save("cat.png")
    own = Path(shutil.copytree(weights, "own"))
    args = ["segment", "cat.png", "--precision=fp32", "--json", "--redo"]
    plain = json.loads(run(*args, "--weights", own, "--crf=auto")[1][0])
    assert "CRF" not in plain["description"]
    card = json.loads((own / "card.json").read_text())
    card["crf"] = {"kernels": [[2, 1], [30, 6, 9]], "iterations": 3}
    (own / "card.json").write_text(json.dumps(card))
    found = json.loads(run(*args, "--weights", own, "--crf=auto")[1][0])
    assert found["description"].endswith("dense CRF 1 x 2 + 6 x 30/9, 3 iterations, symmetric")
    crf = DenseCRF((Kernel(2, 1), Kernel(30, 6, 9)), 3)
    expected = load(own, precision="fp32")("cat.png", crf=crf).labels
    assert (read_mask(found["mask"]) == expected).all()
    assert found["labels"] != plain["labels"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--ensemble=mean"], "got --ensemble mean for one network; set --preset edeconvnet, or"),
        (["--preset=edeconvnet"], "tiny', whose card names no partner for an ensemble; write"),
        (["--preset=edeconvnet", "--ensemble=max"], "'max' is not one of 'mean', 'product'"),
        (
            ["--crf=best"],
            "'best' is not one of 'auto', 'edeconvnet', 'deeplab', 'crfrnn', 'densecrf'",
        ),
        (["--preset=edeconvnet", "--mode=whole", "--proposals=3"], "got --proposals 3 in --mode"),
    ],
)
def test_ensembles_that_are_refused(refused, weights, pair, args, message):
    save("cat.jpg")
    chosen = pair if "--proposals=3" in args else weights
    assert message in refused("segment", "cat.jpg", "--weights", chosen, *args, "-o", "new")
    assert not Path("new").exists()


def test_an_fcn_segments_whole_images(run, refused, pair):
    save("cat.jpg")
    fcn = Path(pair).parent / "fcn8s"
    code, out, _ = run("segment", "cat.jpg", "--weights", fcn, "--json")
    assert (code, json.loads(out[0])["description"][:12]) == (0, "whole images")
    message = refused("segment", "cat.jpg", "--weights", fcn, "--mode=instance", "-o", "new")
    assert "got --mode instance for weights of FCN, which segments whole images" in message
    assert not Path("new").exists()


def test_samples_give_the_uncertainty(refused, run, filled):
    net = filled(SegNet(3, ((1, 4), (1, 6)), dropout=0.5))
    own = save_pretrained(net, "bayesian", {"classes": CLASSES, "long_side": 64})
    common = ("segment", save("in/a.png"), "-o", "out", "--weights", own, "--json")
    code, out, _ = run(*common, "--samples", "3", "--uncertainty")
    record = json.loads(out[-1])
    gray = np.asarray(Image.open(record["uncertainty_image"]))
    assert (code, gray.shape, gray.max()) == (0, (30, 40, 3), 255)
    assert 0 < record["uncertainty"] < record["largest_uncertainty"] <= 0.25
    assert "mean of 3 passes with dropout" in record["description"]
    assert "--uncertainty without --samples; add --samples 20" in refused(*common, "--uncertainty")


def test_large_images_by_tiles(run, refused, weights, monkeypatch):
    """Masks, formats and JSON as of other images; scores are refused, image by image."""
    monkeypatch.setattr("unpool.vision.boxes.reduced_size.__defaults__", (3000,))
    save("in/large.png", photo(90, 70))
    save("in/small.png", photo(40, 30))
    args = ["segment", "in", "--weights", weights, "--mode", "tiles", "--tile", "32", "--json"]
    code, out, err = run(*args, "-o", "out", "--overlap", "8", "--format", "mask,coco,geojson")
    assert (code, err) == (0, [])
    large, small = map(json.loads, out)
    assert [large["size"], small["size"]] == [[90, 70], [40, 30]]
    assert large["description"].startswith("tiles of 32 x 32, overlap 8, native resolution, ")
    segmenter = Segmenter.from_pretrained(weights)
    for record in (large, small):
        found = segmenter(record["source"], mode="tiles", tile=32, overlap=8)
        np.testing.assert_array_equal(read_mask(record["mask"]), found.labels)
        assert record["confidence"] == pytest.approx(found.confidence.mean(), abs=1e-5)
    assert len(json.loads(Path("out/annotations.coco.json").read_text())["images"]) == 2
    assert Path("out/large.overlay.jpg").exists()
    code, out, err = run(*args, "-o", "scores", "--scores")
    assert (code, len(out)) == (3, 2)
    assert json.loads(out[0])["error"] == (
        "got --scores for an image of 0.0 megapixels by tiles, whose class scores are not kept; "
        "leave scores out, cut the image into parts, or pass --mode whole"
    )
    assert Path("scores/small.scores.npz").exists()
    assert not Path("scores/large.png").exists()
    assert refused("segment", "in", "--weights", weights, "--mode", "whole", "--tile", "32") == (
        "unpool: got --tile 32 in --mode whole, where there are no tiles; pass --mode tiles, or "
        "leave that option out"
    )
    assert "wanted a multiple of 4" in refused(*args[:-3], "--tile", "30")


def test_an_ensemble_by_tiles(run, pair):
    save("cat.png", photo(90, 70))
    args = ["segment", "cat.png", "-o", "out", "--weights", pair, "--preset", "edeconvnet"]
    code, out, err = run(*args, "--mode", "tiles", "--tile", "32", "--crf", "deeplab", "--json")
    assert (code, err) == (0, [])
    assert "FCN (the same); dense CRF deeplab" in json.loads(out[0])["description"]
