import io
import json
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.cli.files import CLASSES, hashes, photo, results, save
from unpool.models import DeconvNet, save_pretrained
from unpool.segment.ensemble import load
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import read_mask


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
    """Eight files that are not usable images."""
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
        keys = ["source", "mask", "size", "labels", "confidence", "description", "seconds"]
        assert list(record) == keys
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


def test_lines_of_text(run, weights):
    save("in/cat.jpg")
    Path("in/dog.jpg").touch()
    code, out, err = run("segment", "in", "-o", "out", "--weights", weights)
    assert code == 3
    assert re.fullmatch(r"in/cat\.jpg: (\w+ [\d.]+ %(, )?)+ \([\d.]+ s\)", out[0])
    assert out[1:] == ["1 of 2 segmented, into out"]
    assert err == ["unpool: in/dog.jpg: is empty (0 bytes); copy or download it again"]
    quiet = run("segment", "in", "-o", "out", "--weights", weights, "--quiet")
    assert quiet == (3, [], err)


def test_inputs_without_images_are_reported(run, refused, weights):
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


def test_results_of_earlier_runs_are_not_inputs(run, refused, weights):
    save("cat.jpg")
    save("deep/dog.png")
    args = ["segment", ".", "--weights", weights, "--json"]
    for output in ("segmented", "deep/out"):
        for _ in range(2):
            code, out, _ = run(*args, "-o", output)
            assert (code, len(out)) == (0, 2 if output == "segmented" else 6)
    message = refused(*args, "-o", ".")
    assert "has no images but those in the output folder .; choose another" in message


def test_only_failures(run, weights):
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


def test_options_reach_the_segmenter(run, weights, monkeypatch, has_bf16):
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
    args += ["--batch=2", "--device=cpu", "--no-overlay", "-o", "other"]
    # with both precisions, one of them is not the default
    dtypes = {"fp32": "torch.float32"} | ({"bf16": "torch.bfloat16"} if has_bf16 else {})
    for precision in dtypes:
        precise = [*args, f"--precision={precision}"]
        assert run("segment", "cat.jpg", "--weights", weights, *precise)[0] == 0
    first, *others = seen
    assert set(first[1]) == {"progress"}
    assert [dtype for dtype, _ in others] == list(dtypes.values())
    for _, options in others:
        assert set(options) == {*chosen, "batch", "progress"}
        assert options.items() >= {**chosen, "batch": 2}.items()
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


def test_results_may_lie_beside_inputs_and_be_overwritten(run, weights):
    before = hashes(str(save("photos/cat.jpg").parent))
    for _ in range(2):
        assert run("segment", "photos/cat.jpg", "--weights", weights, "-o", "photos")[0] == 0
    assert hashes("photos").items() > before.items()


@pytest.mark.parametrize("own", ["whole", "instance"])
def test_options_without_effect_are_refused(run, refused, tmp_path, own):
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    weights = save_pretrained(net, tmp_path / "tiny", {"classes": CLASSES, "mode": own})
    args = ["segment", save("cat.jpg"), "--weights", weights]
    cure = "where there are no proposals; pass --mode instance, or leave that option out"
    for option in ("--proposals=5", "--preset=paper", "--method=grid", "--batch=2"):
        name = option.replace("=", " ")
        message = refused(*args, "--mode=whole", option)
        assert message == f"unpool: got {name} in --mode whole, {cure}"
        assert run(*args, "--mode=instance", option)[0] == 0
        if own == "instance":
            assert run(*args, option)[0] == 0
        else:
            message = refused(*args, option)
            assert f"got {name} in --mode whole, which is that of the weights, {cure}" in message
    assert "got --proposals 5 and --preset paper in" in refused(
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
        ({"input": [1]}, r"input \[1\] in .* wanted an object"),
        (
            {"classes": ["a", "b"]},
            r"classes \['a', 'b'\] in the card of .*tiny; wanted 3 names: corr",
        ),
        ({"classes": [1, 2, 3]}, "classes"),
        ({"classes": "abc"}, "classes"),
        ({"long_side": "big"}, "long_side big in .* wanted pixels, 1 to 4096"),
        ({"long_side": 0}, "long_side"),
        ({"presence_threshold": 2}, "presence_threshold 2 in .* wanted a probability, 0 to 1"),
        ({"presence_threshold": "much"}, "presence_threshold"),
        ({"long_side": True}, "long_side"),
        ({"mode": "both"}, "mode both in .* wanted whole or instance or tiles: correct card.json"),
        ({"mode": ["whole"]}, "mode"),
    ],
)
def test_cards_with_mistakes(refused, tmp_path, changes, message):
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    folder = save_pretrained(net, tmp_path / "tiny", {"classes": CLASSES})
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))
    save("cat.jpg")
    assert re.search(f"got {message}", refused("segment", "cat.jpg", "--weights", folder))


def test_unsure_pixels_are_void(run, weights):
    image = np.asarray(Image.open(save("cat.png")).convert("RGB"))
    args = ["segment", "cat.png", "--weights", weights, "--precision=fp32", "--json"]
    found = load(weights, precision="fp32")(image)
    middle = float(np.median(found.confidence))
    record = json.loads(run(*args, f"--void-below={middle}")[1][0])
    expected = np.where(found.confidence < middle, 255, found.labels)
    assert (read_mask(record["mask"]) == expected).all()
    assert record["labels"]["void"] == pytest.approx((expected == 255).mean())
    assert record["confidence"] == pytest.approx(float(found.confidence.mean()), rel=1e-5)
    assert record["description"].endswith(f"void where less sure than {middle:g}")


@pytest.mark.parametrize("of", ["tiny", "pair"])
def test_classes_below_the_presence_threshold_are_left_out(run, refused, weights, pair, of):
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
    p = np.exp(segmenter.predict(image)[0])
    p /= p.sum(0)
    sure = np.sort(p.reshape(len(p), -1)[1:], axis=1)[:, -p[0].size // 100]
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


# Formats of other tools ---------------------------------------------------------------------------
