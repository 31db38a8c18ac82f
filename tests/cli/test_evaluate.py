import csv
import json
from pathlib import Path

import pytest

from tests.cli.files import CLASSES, photo, results, save

FIGURES = {
    *("mode", "miou", "miou_interval", "iou", "pixel_accuracy", "mean_accuracy", "boundary_f1"),
    *("pixel_accuracy_interval", "boundary_f1_interval"),
    *("calibration_error", "images", "class_images", "dropped", "protocol"),
}


def test_both_modes_are_measured(run, weights, labeled):
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--json"]
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


def test_one_mode_is_measured(run, weights, labeled):
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--json"]
    summary = json.loads(run(*args, "--mode=instance", "--proposals=2", "--preset=paper")[1][0])
    assert list(summary["modes"]) == ["instance"]
    assert summary["mode"] == "instance"
    assert "2 edgeboxes proposals" in summary["protocol"]


def test_a_table_of_figures(run, weights, labeled):
    Path("data/images/5.jpg").write_bytes(b"")
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--mode=whole"]
    code, out, err = run(*args)
    assert code == 3
    assert len(err) == 1
    assert err[0].startswith("unpool: dropped 5: ")
    assert out[0].split() == ["%", "whole"]
    assert [line.split()[0] for line in out[1:4]] == CLASSES
    assert [line.split("  ")[0] for line in out[4:10]] == [
        *("mean IoU", "95 % interval", "pixel accuracy", "mean accuracy", "boundary f1"),
        "calibration error",
    ]
    assert "5 of 6 images" in out[-1]
    assert run(*args, "--quiet") == (3, [], err)


def test_means_over_frequent_classes(run, refused, weights, labeled):
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--mode=whole"]
    summary = json.loads(run(*args, "--json", "--min-images=1")[1][0])
    count = sum(n >= 1 for n in summary["class_images"].values())
    assert f"mean over the {count} classes in 1 images or more" in summary["protocol"]
    assert refused(*args, "--min-images=7") == (
        "unpool: got --min-images 7; no class is in the truth of so many of 6 images: choose fewer"
    )


def test_unusable_images_are_dropped(run, refused, weights, labeled):
    save("data/masks/0.png")  # with colors
    Path("data/masks/1.png").write_text("no image")
    save("data/masks/2.png", photo(9, 9).convert("L"))
    Path("data/images/3.jpg").write_bytes(b"")
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--mode=whole"]
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


def test_missing_images_are_dropped(run, weights, labeled):
    Path("data/masks/0.png").unlink()
    save("data/images/1.png")
    Path("data/val.txt").write_text("0\n1\n2\n9\n")
    args = ["evaluate", "--weights", weights, "--data", labeled, "--mode=whole", "--json"]
    code, out, err = run(*args)
    assert (code, err) == (3, [])
    summary = json.loads(out[0])
    assert (summary["images"], sorted(summary["dropped"])) == (1, ["0", "1", "9"])
    assert "found no file for '0'" in summary["dropped"]["0"]
    assert "1 of 4 images" in summary["protocol"]


def test_the_ensemble_is_measured(run, pair, labeled):
    args = ["evaluate", "--weights", pair, "--data", labeled, "--json", "--preset=edeconvnet"]
    args += ["--proposals=2", "--crf=edeconvnet", "--ensemble=product"]
    code, out, err = run(*args)
    assert (code, err) == (0, [])
    summary = json.loads(out[0])
    assert (list(summary["modes"]), summary["mode"]) == (["instance"], "instance")
    for part in ("EDeconvNet: product of DeconvNet (instance-wise, 2 ", "; dense CRF edeconvnet;"):
        assert part in summary["protocol"]
    summary = json.loads(run(*args, "--mode=both")[1][0])
    assert (list(summary["modes"]), summary["mode"]) == (["whole", "instance"], "instance")


def test_an_fcn_is_measured_on_whole_images(run, refused, pair, labeled):
    args = ["evaluate", "--weights", Path(pair).parent / "fcn8s", "--data", labeled]
    assert list(json.loads(run(*args, "--json")[1][0])["modes"]) == ["whole"]
    for mode in ("both", "instance"):
        message = refused(*args, f"--mode={mode}", "-o", "new")
        assert "got --mode instance for weights of FCN" in message
    assert not Path("new").exists()


def test_proposals_for_whole_images_are_refused(refused, weights, labeled):
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all", "-o", "new"]
    message = refused(*args, "--mode=whole", "--proposals=5")
    assert "got --proposals 5 in --mode whole, where there are no proposals; pass --mode" in message
    assert not Path("new").exists()


def test_undefined_figures_are_null(run, weights, labeled, monkeypatch):
    figures = {"mode": "whole", "miou": float("nan"), "dropped": {}, "iou": {"cat": None}}
    monkeypatch.setattr("unpool.segment.evaluate.evaluate", lambda *_, **__: figures)
    out = run("evaluate", "--weights", weights, "--data", labeled, "--split", "all", "--json")[1]
    assert json.loads(out[0], parse_constant=pytest.fail)["miou"] is None


def test_tiles_are_measured(run, refused, weights, labeled):
    args = ["evaluate", "--weights", weights, "--data", labeled, "--split", "all"]
    options = ["--mode=tiles", "--tile=16", "--overlap=4", "--scale=0.5"]
    code, out, err = run(*args, *options, "--json")
    assert (code, err) == (0, [])
    summary = json.loads(out[0])
    assert list(summary["modes"]) == ["tiles"]
    assert summary["mode"] == "tiles"
    assert "tiles of 16 x 16, overlap 4, scale 0.5" in summary["protocol"]
    assert summary["calibration_error"] is not None
    message = refused(*args, "--mode=both", "--tile=16")
    assert "got --tile 16 in --mode whole, where there are no tiles; pass --mode tiles" in message
