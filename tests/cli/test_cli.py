import csv
import errno
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import unpool
from unpool import files, recipes
from unpool.cards import MODES, read_card
from unpool.cli import commands, main
from unpool.models import FCN, DeconvNet, from_pretrained, list_pretrained, save_pretrained
from unpool.ops.crf import CRF_PRESETS
from unpool.presets import PRESETS
from unpool.segment.ensemble import EDECONVNET, ENSEMBLES, EDeconvNet, load
from unpool.segment.evaluate import evaluate
from unpool.segment.segmenter import Segmenter
from unpool.segment.train import SegmentationTask
from unpool.training.task import train
from unpool.vision.images import read_mask
from unpool.vision.proposals import METHODS

CLASSES = ["background", "cat", "dog"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """Weights of a network that is small enough to be used many times."""
    torch.manual_seed(0)
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    card = {"classes": CLASSES, "long_side": 64, "license": "none"}
    return str(save_pretrained(net, tmp_path_factory.mktemp("weights") / "tiny", card))


@pytest.fixture(scope="session")
def pair(tmp_path_factory, filled) -> str:
    """Weights of a small DeconvNet whose card names an FCN as their partner."""
    root, trunk = tmp_path_factory.mktemp("pair"), ((1, 4), (1, 6))
    card = {"classes": CLASSES, "long_side": 64}
    save_pretrained(filled(FCN(3, trunk, None, stride=4, pad=1), seed=1), root / "fcn8s", card)
    net = filled(DeconvNet(3, trunk, None, 32), seed=2)
    return str(save_pretrained(net, root / "net", {**card, "partner": "../fcn8s"}))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder; gives the code, and the lines of each stream."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def refused(run):
    """Run what must be refused, with one line."""

    def refused(*args: object) -> str:
        code, out, err = run(*args)
        assert (code, out, len(err)) == (2, [], 1), err
        assert err[0].startswith("unpool: ")
        return err[0]

    return refused


def photo(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(path: str, image: Image.Image | None = None, **options: object) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    (image or photo()).save(path, **options)
    return Path(path)


def hashes(folder: str) -> dict[str, str]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def results(folder: str) -> set[str]:
    """All files, the hidden ones too."""
    return {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if not p.is_dir()}


# ---- segment -------------------------------------------------------------------------------------


def make_good() -> None:
    """Twelve images of different kinds, all 40 x 30 to a viewer."""
    rgb = photo()
    rotated = rgb.getexif()
    rotated[0x0112] = 6
    save("in/rgb.jpg", rgb)
    save("in/exif.jpg", rgb.transpose(Image.Transpose.ROTATE_90), exif=rotated)
    save("in/cmyk.jpeg", rgb.convert("CMYK"))
    save("in/gray.png", rgb.convert("L"))
    save("in/bilevel.png", rgb.convert("1"))
    save("in/index.png", rgb.convert("P"))
    save("in/clear.png", rgb.convert("RGBA"))
    save("in/deep/gray.alpha.png", rgb.convert("LA"))
    save("in/deep/16bit.png", Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257))
    save("in/deep/still.gif", rgb.convert("P"))
    save("in/deep/photo.WEBP", rgb)
    save("in/deep/scan.tif", rgb)


def make_broken() -> None:
    """Eight files that are no good images."""
    Path("in/empty.jpg").touch()
    Path("in/text.png").write_text("no image")
    Path("in/link.png").symlink_to("nowhere")
    Path("in/half.jpg").write_bytes(Path("in/rgb.jpg").read_bytes()[:400])
    Path("in/deep/half.png").write_bytes(Path("in/index.png").read_bytes()[:-200])
    save("in/moving.gif", photo(), save_all=True, append_images=[photo(seed=1)])
    save("in/float.tiff", photo().convert("F"))
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    Path("in/deep/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


def test_a_folder_of_good_and_broken_images(run, weights):
    make_good()
    good = results("in")
    make_broken()
    before = hashes("in")
    code, out, err = run("segment", "in", "-o", "out", "--weights", weights, "--json")
    assert (code, err) == (3, [])
    records = [json.loads(line) for line in out]
    done = {record["source"]: record for record in records if "error" not in record}
    failed = {record["source"]: record for record in records if "error" in record}
    assert (len(good), len(done), len(failed)) == (12, 12, 8)
    assert set(done) == {f"in/{path}" for path in good}
    for record in done.values():
        assert list(record) == ["source", "mask", "size", "labels", "description", "seconds"]
        assert record["description"].startswith("whole images, long side 64, ")
        assert record["size"] == [40, 30]
        labels = read_mask(record["mask"])
        assert labels.shape == (30, 40)
        with Image.open(record["mask"]) as mask:
            assert mask.mode == "P"
        assert sum(record["labels"].values()) == pytest.approx(1)
        assert record["labels"] == {
            name: pytest.approx(np.mean(labels == k))
            for k, name in enumerate(CLASSES)
            if (labels == k).any()
        }
    for record in failed.values():
        assert list(record) == ["source", "error"]
        assert "\n" not in record["error"]
    names = [Path(path).with_suffix("").as_posix() for path in good]
    ends = (".png", ".overlay.jpg")
    assert results("out") == {f"{name}{end}" for name in names for end in ends}
    assert hashes("in") == before


def test_lines_for_people(run, weights):
    save("in/cat.jpg")
    Path("in/dog.jpg").touch()
    code, out, err = run("segment", "in", "-o", "out", "--weights", weights)
    assert code == 3
    assert re.fullmatch(r"in/cat\.jpg: (\w+ [\d.]+ %(, )?)+ \([\d.]+ s\)", out[0])
    assert out[1:] == ["1 of 2 segmented, into out"]
    assert err == ["unpool: in/dog.jpg: is empty (0 bytes); copy or download it again"]
    quiet = run("segment", "in", "-o", "out", "--weights", weights, "--quiet")
    assert quiet == (3, [], err)


def test_inputs_that_stand_for_nothing_are_reported(run, refused, weights):
    save("cat.jpg")
    save("more/dog.jpg")
    Path("empty").mkdir()
    Path("list.txt").write_text("more/dog.jpg\ncow.jpg\n")
    inputs = ["none.jpg", "cat.jpg", "empty", "*.gif", "list.txt"]
    code, out, err = run("segment", *inputs, "--weights", weights, "--json")
    assert (code, err) == (3, [])
    records = [json.loads(line) for line in out]
    failed = {record["source"]: record["error"] for record in records if "error" in record}
    assert list(failed) == ["none.jpg", "empty", "*.gif", "cow.jpg"]
    assert failed["none.jpg"] == "none.jpg: does not exist; check the path"
    assert [r["source"] for r in records if "error" not in r] == ["cat.jpg", "more/dog.jpg"]
    code, out, err = run("segment", *inputs, "--weights", weights)
    assert (code, err) == (3, [f"unpool: {error}" for error in failed.values()])
    assert out[-1] == "2 of 6 segmented, into segmented"
    message = refused("segment", "none.jpg", "empty", "--weights", weights, "-o", "new")
    assert message == f"unpool: {failed['none.jpg']} (1 more cannot be used)"
    assert not Path("new").exists()


def test_results_of_earlier_runs_are_no_inputs(run, refused, weights):
    save("cat.jpg")
    save("deep/dog.png")
    args = ["segment", ".", "--weights", weights, "--json"]
    for output in ("segmented", "deep/out"):
        for _ in range(2):
            code, out, _ = run(*args, "-o", output)
            assert (code, len(out)) == (0, 2 if output == "segmented" else 6)
    message = refused(*args, "-o", ".")
    assert "has no images but those in the output folder .; choose another" in message


def test_failures_alone_are_failures(run, weights):
    save("in/cat.jpg").write_bytes(b"")
    assert run("segment", "in", "--weights", weights, "--json")[0] == 3


def test_standard_input(run, weights, monkeypatch):
    file = io.BytesIO()
    photo().save(file, "PNG")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.getvalue())))
    code, out, err = run("segment", "-", "--weights", weights, "--json")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    assert (record["source"], record["mask"]) == ("-", "segmented/stdin.png")
    assert results("segmented") == {"stdin.png", "stdin.overlay.jpg"}


def test_broken_standard_input(run, weights, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"text")))
    code, out, _ = run("segment", "-", "--weights", weights, "--json")
    assert (code, json.loads(out[0])["source"]) == (3, "-")


def test_options_reach_the_segmenter(run, weights, monkeypatch):
    seen = []
    call = Segmenter.__call__

    def spy(self, image, **options):
        seen.append((str(self.dtype), options))
        return call(self, image, **options)

    monkeypatch.setattr(Segmenter, "__call__", spy)
    save("cat.jpg")
    assert run("segment", "cat.jpg", "--weights", weights)[0] == 0
    chosen = {"mode": "instance", "preset": "reference", "proposals": 3, "method": "grid"}
    args = [f"--{name}={value}" for name, value in chosen.items()]
    args += ["--batch=2", "--precision=bf16", "--device=cpu", "--no-overlay", "-o", "other"]
    assert run("segment", "cat.jpg", "--weights", weights, *args)[0] == 0
    assert [set(options) for _, options in seen] == [{"progress"}, {*chosen, "batch", "progress"}]
    assert seen[1][0] == "torch.bfloat16"
    assert seen[1][1].items() >= {**chosen, "batch": 2}.items()
    assert results("other") == {"cat.png"}


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["photos/cat.png", "photos"], "photos"),
        (["photos/cat.png"], "./photos/../photos"),
        (["photos/cat.png"], "link"),
        (["link/cat.png"], "photos"),
        (["photos/dog.jpg", "photos/dog.overlay.jpg"], "photos"),
    ],
)
def test_inputs_are_not_overwritten(run, refused, weights, inputs, output):
    for name in ("cat.png", "dog.jpg", "dog.overlay.jpg"):
        save(f"photos/{name}")
    Path("link").symlink_to("photos")
    before = hashes(".")
    message = refused("segment", *inputs, "--weights", weights, "-o", output)
    assert re.search("which would overwrite the input .*; choose another output folder", message)
    assert hashes(".") == before
    assert run("segment", *inputs, "--weights", weights, "-o", "new")[0] == 0


def test_results_may_stand_beside_inputs_and_be_made_again(run, weights):
    before = hashes(str(save("photos/cat.jpg").parent))
    for _ in range(2):
        assert run("segment", "photos/cat.jpg", "--weights", weights, "-o", "photos")[0] == 0
    assert hashes("photos").items() > before.items()


@pytest.mark.parametrize("own", ["whole", "instance"])
def test_options_without_effect_are_refused(run, refused, tmp_path, own):
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    weights = save_pretrained(net, tmp_path / "tiny", {"classes": CLASSES, "mode": own})
    args = ["segment", save("cat.jpg"), "--weights", weights]
    cure = "where there are no proposals; add --mode instance, or leave that option out"
    for option in ("--proposals=5", "--preset=paper", "--method=grid", "--batch=2"):
        name = option.partition("=")[0]
        message = refused(*args, "--mode=whole", option)
        assert message == f"unpool: got {name} in mode whole, {cure}"
        assert run(*args, "--mode=instance", option)[0] == 0
        if own == "instance":
            assert run(*args, option)[0] == 0
        else:
            message = refused(*args, option)
            assert f"got {name} in mode whole, which is that of the weights, {cure}" in message
    assert "got --preset and --proposals" in refused(
        *args, "--mode=whole", "--proposals=5", "--preset=paper"
    )


def test_an_option_without_effect_leaves_no_folder(refused, weights):
    save("cat.jpg")
    refused("segment", "cat.jpg", "--weights", weights, "--proposals=5", "-o", "new")
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"palette": [[0, 0, 300]]}, r"palette \[\[0, 0, 300\]\] .* wanted up to 256 colors \["),
        ({"palette": "red"}, "palette red in the card"),
        ({"palette": [[0, 0]]}, "palette"),
        ({"palette": [[0, 0, 0]] * 257}, "palette"),
        (
            {"input": {"mean": [1, 2]}},
            r"mean \[1, 2\] in .* wanted three numbers: blue, green, red",
        ),
        ({"input": {"mean": [1, 2, "3"]}}, "mean"),
        ({"input": {"mean": [1, 2, 10**400]}}, "mean"),
        ({"input": [1]}, "mean"),
        (
            {"classes": ["a", "b"]},
            r"classes \['a', 'b'\] in the card of .*tiny; wanted 3 names: corr",
        ),
        ({"classes": [1, 2, 3]}, "classes"),
        ({"classes": "abc"}, "classes"),
        ({"long_side": "big"}, "long_side big in .* wanted pixels, 1 or more"),
        ({"long_side": 0}, "long_side"),
        ({"presence_threshold": 2}, "presence_threshold 2 in .* wanted a probability, 0 to 1"),
        ({"presence_threshold": "much"}, "presence_threshold"),
        ({"long_side": True}, "long_side"),
        ({"mode": "both"}, "mode both in .* wanted whole or instance: correct card.json, or copy"),
        ({"mode": ["whole"]}, "mode"),
    ],
)
def test_cards_with_mistakes(refused, tmp_path, changes, message):
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    folder = save_pretrained(net, tmp_path / "tiny", {"classes": CLASSES, **changes})
    save("cat.jpg")
    assert re.search(f"got {message}", refused("segment", "cat.jpg", "--weights", folder))


# ---- ensemble, dense CRF, scores -----------------------------------------------------------------


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
    told = json.loads(run(*args)[1][0])["description"]
    assert "3 grid proposals, preset paper" in told
    assert told.endswith("; dense CRF edeconvnet")


@pytest.mark.parametrize("of", ["tiny", "pair"])
def test_classes_that_are_nowhere_sure_are_left_out(run, refused, weights, pair, of):
    image = np.asarray(Image.open(save("cat.png")).convert("RGB"))
    chosen = {"tiny": weights, "pair": pair}[of]
    args = ["cat.png", "--weights", chosen, "--precision=fp32", "--json"]
    args += ["--preset=edeconvnet"] * (of == "pair")
    segmenter = load(chosen, "edeconvnet" if of == "pair" else None, precision="fp32")
    every = json.loads(run("segment", *args)[1][0])
    assert len(every["labels"]) > 1
    one = json.loads(
        run("segment", *args, "--presence-threshold=0.999")[1][0]
    )  # which nothing reaches
    assert list(one["labels"]) == ["background"]
    left_out = "only classes with a probability of 0.999 on 1 % of the image"
    assert one["description"].endswith(left_out)
    shares = np.exp(segmenter.predict(image)[0])
    shares /= shares.sum(0)
    sure = np.sort(shares.reshape(len(shares), -1)[1:], axis=1)[:, -shares[0].size // 100]
    between = float(sure.mean())  # one of the two is that sure on 1 %, the other is not
    half = json.loads(run("segment", *args, f"--presence-threshold={between}")[1][0])
    expected = segmenter(image, presence_threshold=between).labels
    assert (read_mask(half["mask"]) == expected).all()
    assert (expected == 1 + sure.argmax()).any()  # and with 0.999 it was not there
    own = Path(shutil.copytree(Path(chosen).parent, "own"), Path(chosen).name)
    args[2] = own
    card = own / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "presence_threshold": 0.999}))
    assert json.loads(run("segment", *args)[1][0])["labels"] == one["labels"]
    assert (
        json.loads(run("segment", *args, "--presence-threshold=0")[1][0])["labels"]
        == every["labels"]
    )
    message = refused(
        "segment", "cat.png", "--weights", chosen, "--presence-threshold=75", "-o", "new"
    )
    assert "75.0 is not in the range 0<=x<=1" in message


def test_saved_scores_keep_the_presence(run, weights):
    save("cat.png")
    args = [
        "segment",
        "cat.png",
        "--weights",
        weights,
        "--presence-threshold=0.999",
        "--scores",
        "--json",
    ]
    assert run(*args, "-o", "out")[0] == 0
    args = ["crf", "out/cat.scores.npz", "cat.png", "--crf=deeplab", "--json"]
    kept = json.loads(run(*args)[1][0])
    assert list(kept["labels"]) == ["background"]
    assert kept["description"] == (
        "only classes with a probability of 0.999 on 1 % of the image, "
        "dense CRF deeplab of cat.scores.npz"
    )
    assert json.loads(run(*args, "--presence-threshold=0")[1][0])["labels"] != kept["labels"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--ensemble=mean"], "got ensemble 'mean' for one network; set --preset edeconvnet, or"),
        (["--preset=edeconvnet"], "tiny', whose card names no partner for an ensemble; write"),
        (["--preset=edeconvnet", "--ensemble=max"], "'max' is not one of 'mean', 'product'"),
        (["--crf=best"], "'best' is not one of 'edeconvnet', 'deeplab', 'crfrnn', 'densecrf'"),
        (["--preset=edeconvnet", "--mode=whole", "--proposals=3"], "got --proposals in mode whole"),
    ],
)
def test_ensembles_that_cannot_be(refused, weights, pair, args, message):
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
    assert "got mode 'instance' for weights of FCN, which segments whole images" in message
    assert not Path("new").exists()


def test_scores_are_kept_and_refined(run, pair):
    save("photos/cat.png")
    args = ["photos", "--weights", pair, "--precision=fp32", "--json"]
    code, out, err = run("segment", *args, "-o", "out", "--scores", "--no-overlay")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    assert record["scores"] == "out/cat.scores.npz"
    assert results("out") == {"cat.png", "cat.scores.npz"}
    with np.load("out/cat.scores.npz") as file:
        assert (file["scores"].argmax(0) == read_mask("out/cat.png")).mean() > 0.99
        assert file["classes"].tolist() == CLASSES
        raw = file["scores"].astype(np.float64)
    expected = json.loads(run("segment", *args, "-o", "at-once", "--crf=deeplab")[1][0])
    args = ["crf", "out/cat.scores.npz", "photos/cat.png", "--crf=deeplab", "--json"]
    code, out, err = run(*args)
    assert (code, err, len(out)) == (0, [], 1)
    record = json.loads(out[0])
    assert list(record) == ["source", "mask", "size", "labels", "description", "seconds"]
    assert (record["source"], record["mask"]) == ("photos/cat.png", "refined/cat.png")
    assert (record["size"], record["description"]) == (
        [40, 30],
        "dense CRF deeplab of cat.scores.npz",
    )
    labels = read_mask("refined/cat.png")
    assert (labels == read_mask(expected["mask"])).mean() > 0.99
    assert results("refined") == {"cat.png", "cat.overlay.jpg"}
    e = np.exp(raw - raw.max(0))
    np.save("p.npy", e / e.sum(0))
    args = ["crf", "p.npy", "photos/cat.png", "--crf=deeplab", "--probabilities"]
    code, out, err = run(*args, "--no-overlay", "-o", "new")
    assert (code, err) == (0, [])
    assert re.fullmatch(r"photos/cat\.png: class \d .*%.* \([\d.]+ s\)", out[0])
    assert (read_mask("new/cat.png") == labels).mean() > 0.99
    assert results("new") == {"cat.png"}
    assert run(*args, "--quiet") == (0, [], [])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.npy", "cat.png"], "Missing option '--crf'"),
        (["none.npy", "cat.png", "--crf=deeplab"], "scores from none.npy .No such file or"),
        (["cat.png", "cat.png", "--crf=deeplab"], "cat.png is no .npz or .npy of numbers"),
        (["a.npy", "none.png", "--crf=deeplab"], "none.png"),
        (["a.npy", "cat.png", "--crf=deeplab", "--probabilities"], "pass no --probabilities for"),
        (["a.npy", "cat.png", "--crf=deeplab", "-o", "."], "overwrite the input cat.png; choose"),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_refined(refused, args, message):
    save("cat.png")
    save("dog.png", photo(30, 40))
    np.save("a.npy", np.random.default_rng(0).normal(size=(3, 30, 40)))
    before = hashes(".")
    assert re.search(message, refused("crf", *args))
    assert hashes(".") == before


def test_scores_of_another_image_fail(run):
    save("dog.png", photo(30, 40))
    np.save("a.npy", np.random.default_rng(0).normal(size=(3, 30, 40)))
    code, out, err = run("crf", "a.npy", "dog.png", "--crf=deeplab")
    assert (code, out, len(err)) == (3, [], 1)
    message = "got scores of (3, 30, 40) for an image of (40, 30) (H, W); wanted (K, H, W): take"
    assert err[0].startswith(f"unpool: dog.png: {message}")
    assert results("refined") == set()


# ---- what goes wrong -----------------------------------------------------------------------------


def test_a_name_that_is_too_long_fails_alone(run, weights):
    save(f"in/{'x' * 250}.jpg")
    save("in/cat.jpg")
    code, out, _ = run("segment", "in", "--weights", weights, "--json")
    assert code == 3
    assert ["error" in json.loads(line) for line in out] == [False, True]
    assert "File name too long" in out[1]
    assert results("segmented") == {"cat.png", "cat.overlay.jpg"}


def test_timings_add_up(run, weights):
    save("cat.jpg")
    args = ["segment", "cat.jpg", "--weights", weights, "--crf", "deeplab", "--timings"]
    code, out, _ = run(*args, "--json")
    record = json.loads(out[0])
    assert code == 0
    assert {"reading", "resizing", "network", "labels", "CRF", "writing", "other"} <= set(
        record["timings"]
    )
    rounding = 0.001 * len(record["timings"])
    assert sum(record["timings"].values()) == pytest.approx(record["seconds"], abs=rounding)
    code, out, _ = run(*args)
    assert re.fullmatch(r"  reading \d+\.\d\d s, .*, other \d+\.\d\d s", out[1])


def test_no_room_for_one_image_in_memory(run, weights, monkeypatch):
    def grow(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(Segmenter, "__call__", grow)
    save("cat.jpg")
    code, _, err = run("segment", "cat.jpg", "--weights", weights)
    assert code == 3
    cure = "out of memory; use smaller images or a smaller batch"
    assert err == [f"unpool: cat.jpg: {cure}"]


def test_a_full_disk_ends_the_work(run, weights, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_sync", fail)
    save("in/a.jpg")
    save("in/b.jpg")
    assert run("segment", "in", "--weights", weights) == (
        2,
        [],
        ["unpool: No space left on device"],
    )
    assert results("segmented") == set()


def test_a_folder_that_may_not_be_written_to(refused, weights, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--weights", weights)
    assert "got segmented, which may not be written to; choose another with -o" in message


@pytest.mark.parametrize("output", ["cat.jpg", "/dev/null"])
@pytest.mark.parametrize(
    "command",
    [
        ["segment", "cat.jpg"],
        ["evaluate", "--data", "data"],
        ["train", "objects", "--data", "data"],
    ],
)
def test_an_output_that_is_no_folder(refused, command, output):
    save("cat.jpg")
    message = refused(*command, "-o", output)
    assert f"{output} is not a folder; give the name of a folder, old or new." in message
    assert message.endswith(f"See unpool {command[0]} --help")


def test_a_folder_that_cannot_be_made(refused, weights):
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--weights", weights, "-o", "cat.jpg/new")
    assert re.search("got cat.jpg/new, which cannot be made .*; choose another with -o", message)


def test_a_bug_shows_its_traceback(run, weights, monkeypatch):
    monkeypatch.setattr(Segmenter, "__call__", lambda *_, **__: 1 / 0)
    save("cat.jpg")
    with pytest.raises(ZeroDivisionError):
        run("segment", "cat.jpg", "--weights", weights)


# ---- evaluate ------------------------------------------------------------------------------------


@pytest.fixture
def data(run) -> Path:
    """Six labeled images in the plain layout."""
    Path("data").mkdir()
    Path("data/classes.txt").write_text("\n".join(CLASSES))
    for i in range(6):
        save(f"data/images/{i}.jpg", photo(48, 32, seed=i))
        labels = np.zeros((32, 48), np.uint8)
        labels[8:24, 4 * i : 20 + 4 * i] = 1
        labels[:, 0] = 255
        save(f"data/masks/{i}.png", Image.fromarray(labels))
    return Path("data")


FIGURES = {
    *("mode", "miou", "miou_interval", "iou", "pixel_accuracy", "mean_accuracy", "boundary_f1"),
    *("images", "dropped", "protocol"),
}


def test_both_modes_are_measured(run, weights, data):
    args = ["evaluate", "--weights", weights, "--data", data, "--split", "all", "--json"]
    code, out, err = run(*args, "-o", "figures")
    assert (code, len(out), err) == (0, 1, [])
    summary = json.loads(out[0], parse_constant=pytest.fail)
    assert set(summary) == FIGURES | {"modes", "weights", "data", "split", "seconds"}
    assert list(summary["modes"]) == ["whole", "instance"]
    assert all(set(figures) == FIGURES for figures in summary["modes"].values())
    assert {name: summary[name] for name in FIGURES} == summary["modes"]["whole"]
    assert summary["modes"]["instance"]["protocol"] != summary["protocol"]
    assert (summary["images"], summary["dropped"], summary["split"]) == (6, {}, "all")
    assert (summary["weights"], summary["data"]) == (weights, "data")
    assert results("figures") == {"summary.json", "iou.csv"}
    assert json.loads(Path("figures/summary.json").read_text()) == summary
    rows = list(csv.DictReader(Path("figures/iou.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == CLASSES
    assert float(rows[0]["whole"]) == summary["iou"]["background"]


def test_one_mode_is_measured(run, weights, data):
    args = ["evaluate", "--weights", weights, "--data", data, "--split", "all", "--json"]
    summary = json.loads(run(*args, "--mode=instance", "--proposals=2", "--preset=paper")[1][0])
    assert list(summary["modes"]) == ["instance"]
    assert summary["mode"] == "instance"
    assert "2 edgeboxes proposals" in summary["protocol"]


def test_a_table_of_figures(run, weights, data):
    Path("data/images/5.jpg").write_bytes(b"")
    args = ["evaluate", "--weights", weights, "--data", data, "--split", "all", "--mode=whole"]
    code, out, err = run(*args)
    assert code == 3
    assert len(err) == 1
    assert err[0].startswith("unpool: dropped 5: ")
    assert out[0].split() == ["%", "whole"]
    assert [line.split()[0] for line in out[1:4]] == CLASSES
    assert [line.split("  ")[0] for line in out[4:9]] == [
        *("mean IoU", "95 % interval", "pixel accuracy", "mean accuracy", "boundary f1")
    ]
    assert "5 of 6 images" in out[-1]
    assert run(*args, "--quiet") == (3, [], err)


def test_images_that_cannot_be_used_are_dropped(run, refused, weights, data):
    save("data/masks/0.png")  # with colors
    Path("data/masks/1.png").write_text("no image")
    save("data/masks/2.png", photo(9, 9).convert("L"))
    Path("data/images/3.jpg").write_bytes(b"")
    args = ["evaluate", "--weights", weights, "--data", data, "--split", "all", "--mode=whole"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (3, [])
    summary = json.loads(out[0])
    assert (summary["images"], sorted(summary["dropped"])) == (2, ["0", "1", "2", "3"])
    assert "color-coded" in summary["dropped"]["0"]
    code, out, err = run(*args)
    assert (code, [line[:18] for line in err]) == (3, [f"unpool: dropped {i}:" for i in range(4)])
    for path in Path("data/images").iterdir():
        path.write_bytes(b"")
    assert "no image of data could be evaluated: " in refused(*args)


def test_images_that_are_missing_are_dropped(run, weights, data):
    Path("data/masks/0.png").unlink()
    save("data/images/1.png")
    Path("data/val.txt").write_text("0\n1\n2\n9\n")
    args = ["evaluate", "--weights", weights, "--data", data, "--mode=whole", "--json"]
    code, out, err = run(*args)
    assert (code, err) == (3, [])
    summary = json.loads(out[0])
    assert (summary["images"], sorted(summary["dropped"])) == (1, ["0", "1", "9"])
    assert "found no file for '0'" in summary["dropped"]["0"]
    assert "1 of 4 images" in summary["protocol"]


def test_the_ensemble_is_measured(run, pair, data):
    args = ["evaluate", "--weights", pair, "--data", data, "--json", "--preset=edeconvnet"]
    args += ["--proposals=2", "--crf=edeconvnet", "--ensemble=product"]
    code, out, err = run(*args)
    assert (code, err) == (0, [])
    summary = json.loads(out[0])
    assert (list(summary["modes"]), summary["mode"]) == (["instance"], "instance")
    for part in ("EDeconvNet: product of DeconvNet (instance-wise, 2 ", "; dense CRF edeconvnet;"):
        assert part in summary["protocol"]
    summary = json.loads(run(*args, "--mode=both")[1][0])
    assert (list(summary["modes"]), summary["mode"]) == (["whole", "instance"], "instance")


def test_an_fcn_is_measured_on_whole_images(run, refused, pair, data):
    args = ["evaluate", "--weights", Path(pair).parent / "fcn8s", "--data", data]
    assert list(json.loads(run(*args, "--json")[1][0])["modes"]) == ["whole"]
    for mode in ("both", "instance"):
        message = refused(*args, f"--mode={mode}", "-o", "new")
        assert "got mode 'instance' for weights of FCN" in message
    assert not Path("new").exists()


def test_proposals_for_whole_images_are_refused(refused, weights, data):
    args = ["evaluate", "--weights", weights, "--data", data, "--split", "all", "-o", "new"]
    message = refused(*args, "--mode=whole", "--proposals=5")
    assert "got --proposals in mode whole, where there are no proposals; add --mode" in message
    assert not Path("new").exists()


def test_figures_that_do_not_exist_are_null(run, weights, data, monkeypatch):
    figures = {"mode": "whole", "miou": float("nan"), "dropped": {}, "iou": {"cat": None}}
    monkeypatch.setattr("unpool.segment.evaluate.evaluate", lambda *_, **__: figures)
    out = run("evaluate", "--weights", weights, "--data", data, "--split", "all", "--json")[1]
    assert json.loads(out[0], parse_constant=pytest.fail)["miou"] is None


# ---- check, convert, info ------------------------------------------------------------------------


def test_check(run, data):
    code, out, _ = run("check", data, "--json")
    report = json.loads("\n".join(out))
    assert (code, report["ok"]) == (0, True)
    code, out, err = run("check", data)
    assert (code, err) == (0, [])
    assert any(line.startswith("1 cat") for line in out)
    Path("data/masks/5.png").unlink()
    code, out, err = run("check", data, "--split", "all", "--json")
    assert (code, len(out), json.loads(out[0])["ok"]) == (2, 1, False)
    assert err == ["unpool: data has 1 error; correct, and check again"]
    code, out, _ = run("check", data, "--split", "all")
    assert code == 2
    assert out[0].startswith("error: masks/5")
    assert run("check", data, "--split", "all", "--quiet") == (2, [], err)


def test_convert_stores_anew(run, refused, weights):
    code, out, _ = run("convert", weights, "small", "--int8", "--json")
    assert code == 0
    facts = json.loads(out[0])
    assert (facts["weights"], facts["storage"], facts["ready"]) == ("small", "int8", True)
    assert facts["parameters"] == sum(p.numel() for p in from_pretrained("small")[0].parameters())
    assert "exists already; name a new folder" in refused("convert", weights, "small")
    code, out, _ = run("convert", weights, "large")
    assert out[1:] == ["weights: large", *out[2:]]
    save("cat.jpg")
    assert run("segment", "cat.jpg", "--weights", "small")[0] == 0


def test_info(run, weights, monkeypatch):
    figures = {"val": {"miou": 0.4424, "images": 80}}
    card = {"figures": figures, "license": "none", "palette": [[0, 0, 0]]}
    monkeypatch.setattr("unpool.cli.info.list_pretrained", lambda: ["cats"])
    monkeypatch.setattr("unpool.cli.info.read_card", {"cats": card}.__getitem__)
    monkeypatch.setattr(recipes, "RECIPES", {"short": None})
    code, out, err = run("info", "--json")
    assert (code, err, len(out)) == (0, [], 1)
    facts = json.loads(out[0])
    assert facts["unpool"] == unpool.__version__
    assert facts["torch"] == torch.__version__
    assert facts["weights"] == {"cats": {"figures": figures, "license": "none"}}
    assert facts["recipes"] == ["short"]
    assert "devices" not in facts
    facts = json.loads(run("info", "--devices", "--json")[1][0])
    assert (facts["devices"][0], set(facts["bf16"]) <= set(facts["devices"])) == ("cpu", True)
    lines = run("info")[1]
    assert {f"unpool: {unpool.__version__}", "devices: shown with --devices"} <= set(lines)
    assert {"  cats:", "        miou: 44.2 %", "    license: none"} <= set(lines)
    assert json.loads(run("info", "--weights", "cats", "--json")[1][0]) == card
    lines = run("info", "--weights", "cats")[1]
    assert lines == ["figures:", "  val:", "    miou: 44.2 %", "    images: 80", "license: none"]


def test_info_of_a_folder(run, weights):
    card = json.loads(Path(weights, "card.json").read_text())
    assert json.loads(run("info", "--weights", weights, "--json")[1][0]) == card
    lines = run("info", "--weights", weights)[1]
    assert "classes: background, cat, dog" in lines
    assert max(map(len, lines)) <= 80


def test_info_knows_the_weights_of_the_package(run):
    names = [*json.loads(run("info", "--json")[1][0])["weights"]]
    assert names == list_pretrained()
    for name in names:
        assert json.loads(run("info", "--weights", name, "--json")[1][0]) == read_card(name)


# ---- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["segmnt"], "No such command 'segmnt'.* See unpool --help"),
        (["segment"], r"Missing argument 'INPUTS\.\.\.'\. See unpool segment --help"),
        (["segment", "cat.jpg", "--wieghts", "x"], "No such option.* See unpool segment --help"),
        (["segment", "cat.jpg", "--mode", "part"], "'part' is not one of 'whole', 'instance'"),
        (["segment", "cat.jpg", "--batch", "0"], "0 is not in the range x>=1"),
        (["segment", "cat.jpg", "-o", "cat.jpg"], r"'-o' / '--output': cat\.jpg is not a folder"),
        (["evaluate", "--data", "cat.jpg"], "got cat.jpg, which is not a folder"),
        (["convert", "WEIGHTS", "cat.jpg"], "cat.jpg is not a folder"),
        (["segment", "dog.jpg"], "dog.jpg: does not exist; check the path"),
        (["segment", "cat.jpg", "--weights", "lions"], "got weights 'lions'; wanted a folder"),
        (["segment", "cat.jpg", "--weights", "WEIGHTS", "--device", "cuda:99"], "has cpu"),
        (["evaluate"], "Missing option '--data'"),
        (["evaluate", "--data", "none"], "got none, which is not a folder"),
        (["check", "none"], "none"),
        (["convert", "none", "new"], "got weights 'none'"),
        (["convert", "none", "new", "--batch-norm", "folded"], "got batch_norm for none"),
        (["convert", "cat.jpg", "new"], "cat.jpg, byte 0: .*wanted a whole .caffemodel"),
        (["info", "--weights", "lions"], "got weights 'lions'"),
    ],
)
def test_mistakes_are_told_in_one_line(refused, weights, args, message):
    save("cat.jpg")
    args = [weights if arg == "WEIGHTS" else arg for arg in args]
    assert re.search(message, refused(*args))
    assert not Path("new").exists()


def test_help_and_version(run):
    code, out, err = run()
    assert (code, err) == (0, [])
    assert run("--help") == run("-h") == (code, out, err)
    assert run("--version") == (0, [f"unpool {unpool.__version__}"], [])
    for name in commands.commands:
        text = " ".join(run(name, "--help")[1])
        assert f"Example: unpool {name} " in text


@pytest.mark.parametrize(
    "args",
    [["segment", "--help"], ["info"], ["info", "--json"], ["info", "--weights", "WEIGHTS"]],
)
def test_help_and_info_are_quick(args, weights):
    """No application is loaded for them."""
    args = [weights if arg == "WEIGHTS" else arg for arg in args]
    code = f"import sys; from unpool.cli import main; main({args}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "torchmetrics", "numpy", "cv2", "PIL", "rich"})


def test_stated_defaults_are_those_of_the_applications():
    segmenter = [Segmenter.score, Segmenter.__init__, Segmenter.from_pretrained]
    homes = {
        "segment": segmenter,
        "evaluate": [*segmenter, evaluate],
        "train": [SegmentationTask, train],
    }
    left = (
        "mode",
        "aggregate",
        "presence_threshold",
        "batch",
    )  # which depend on the weights, or on the machine
    compared = 0
    for name, functions in homes.items():
        parameters = {}
        for function in functions:
            parameters |= inspect.signature(function).parameters
        parameters["weights"] = inspect.signature(Segmenter.from_pretrained).parameters["source"]
        for option in commands.commands[name].params:
            stated = re.search(r"\[default: (.*)\]", getattr(option, "help", None) or "")
            if stated and isinstance(option.default, str):
                assert stated[1] == option.default
            if stated and option.name in parameters and option.name not in left:
                compared += 1
                assert stated[1] == str(parameters[option.name].default), option.name
    assert compared == 15
    ensemble = inspect.signature(EDeconvNet.__init__).parameters["ensemble"].default
    for name in ("segment", "evaluate"):
        (option,) = (o for o in commands.commands[name].params if o.name == "ensemble")
        assert f"[default: {ensemble}]" in option.help


def test_choices_are_those_of_the_applications():
    options = {option.name: option for option in commands.commands["segment"].params}
    presets = [*PRESETS, EDECONVNET]
    known = {"mode": MODES, "preset": presets, "method": METHODS, "ensemble": ENSEMBLES}
    for name, values in known.items():
        assert list(options[name].type.choices) == list(values)
    for command in ("segment", "evaluate", "crf"):
        (option,) = (o for o in commands.commands[command].params if o.name == "crf")
        assert list(option.type.choices) == list(CRF_PRESETS)


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupts(run, weights, monkeypatch, end):
    call = Segmenter.__call__
    calls = []

    def spy(self, image, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), end)
        return call(self, image, **options)

    monkeypatch.setattr(Segmenter, "__call__", spy)
    for name in "abc":
        save(f"in/{name}.jpg")
    # a shell that starts a job in the background lets it ignore Ctrl-C
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, out, err = run("segment", "in", "--weights", weights, "--json")
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert (code, len(out), err) == (130, 1, ["unpool: interrupted"])
    assert results("segmented") == {"a.png", "a.overlay.jpg"}
    assert signal.getsignal(signal.SIGTERM) is before


UNPOOL = [sys.executable, "-c", "import sys; from unpool.cli import main; sys.exit(main())"]


def test_the_package_is_a_program(run):
    done = subprocess.run(
        [sys.executable, "-m", "unpool", "info", "--weights", "lions"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("unpool: got weights 'lions'; wanted a folder")


def test_output_that_nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*UNPOOL, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_output_to_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*UNPOOL, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"unpool: No space left on device\n")


def test_names_that_are_no_text(run, weights):
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        save(name)
    except OSError:
        pytest.skip("this file system wants names to be text")
    code, out, _ = run("segment", name, "--weights", weights, "--json")
    assert (code, json.loads(out[0])["source"]) == (0, name)
    assert run("segment", name, "--weights", weights)[1][0].startswith(r"caf\udce9.jpg: ")


def test_a_bar_on_a_terminal_and_json_in_a_pipe(run, weights, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    save("cat.jpg")
    code, out, err = run("segment", "cat.jpg", "--weights", weights, "--json")
    assert (code, len(out)) == (0, 1)
    assert json.loads(out[0])["source"] == "cat.jpg"
    assert "segmenting" in "".join(err)
    assert run("segment", "cat.jpg", "--weights", weights, "--json", "--quiet")[2] == []
