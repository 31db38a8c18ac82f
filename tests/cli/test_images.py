import errno
import json
import sys
import tarfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import click
import numpy as np
import pytest
from PIL import Image

from tests.cli.files import hashes, results
from tests.cli.test_segment import make_good
from unpool.cli import console
from unpool.cli.images import each_image
from unpool.errors import DataError, OptionError
from unpool.files import write_bytes
from unpool.vision.sources import Found, Source, Unusable


@pytest.fixture
def loop(capsys, tmp_path, monkeypatch):
    """Run the loop over three images as a command; gives code, lines and lines of errors."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Image.fromarray(np.full((4, 5, 3), ord(name), np.uint8)).save(f"{name}.png")
    found = Found([Source(Path(f"{n}.png"), PurePosixPath(n)) for n in "abc"], [])

    @click.command()
    @click.option("--size", type=int)
    @click.pass_context
    def command(context, size):
        pass

    def run(
        make,
        found=found,
        *,
        as_json=False,
        quiet=False,
        summary="done",
        network="",
        redo=True,
        **params,
    ):
        with click.Context(command) as context:
            context.params = params
            code = each_image(
                found,
                tmp_path / "out",
                make,
                lambda record: f"{record['source']} has {record['shade']}",
                "looking",
                as_json,
                quiet,
                summary,
                network=network,
                redo=redo,
            )
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    run.found = found
    return run


def shade(source, stem, progress):
    progress(1, 2, "half of it")
    return {"shade": int(source.read()[0, 0, 0])}


def write(source, stem, progress):
    """Write a file for each image, and note the call."""
    calls.append(str(source))
    write_bytes(f"{stem}.txt", f"shade {shade(source, stem, progress)['shade']}".encode())
    return {"file": f"{stem}.txt", **shade(source, stem, progress)}


calls = []


def failing(error):
    def make(source, stem, progress):
        if str(source) == "b.png":
            raise error
        return shade(source, stem, progress)

    return make


def test_every_image_gets_a_record(loop):
    lines = ["a.png has 97", "b.png has 98", "c.png has 99"]
    assert loop(shade) == (0, [*lines, "3 of 3 done"], [])
    assert loop(shade, summary="") == (0, lines, [])
    assert loop(shade, quiet=True) == (0, [], [])
    code, out, err = loop(shade, as_json=True)
    assert (code, err) == (0, [])
    for line, name in zip(out, "abc", strict=True):
        record = json.loads(line)
        assert record.pop("seconds") < 10
        assert record == {"source": f"{name}.png", "shade": ord(name)}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("got 3 pixels; wanted more"), "b.png: got 3 pixels; wanted more"),
        (OSError(errno.EACCES, "Permission denied", "b.png"), "b.png: Permission denied"),
        (MemoryError(), "b.png: out of memory; use smaller images or a smaller batch"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "b.png: out of memory; use smaller images or a smaller batch",
        ),
        (OptionError("got no size; pass size=3"), "b.png: got no size; pass --size 3"),
    ],
)
def test_a_failure_is_reported_and_the_others_go_on(loop, error, message):
    code, out, err = loop(failing(error))
    assert code == 3
    assert out == ["a.png has 97", "c.png has 99", "2 of 3 done"]
    assert err == [f"unpool: {message}"]
    assert loop(failing(error), quiet=True) == (3, [], err)
    code, out, err = loop(failing(error), as_json=True)
    assert (code, err) == (3, [])
    failed = json.loads(out[1])
    assert list(failed) == ["source", "error"]
    assert message.endswith(failed["error"])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("x")])
def test_a_full_disk_and_a_bug_end_the_work(loop, error):
    with pytest.raises(type(error)):
        loop(failing(error))


# ---- earlier runs --------------------------------------------------------------------------------


@pytest.fixture
def again(loop):
    """Run the loop, and give the names of the images that were done and those that were skipped."""

    def again(make=write, **options):
        calls.clear()
        _, out, _ = loop(make, as_json=True, redo=options.pop("redo", False), **options)
        again.records = [json.loads(line) for line in out]
        done = "".join(name[0] for name in calls)
        return done, "".join(r["source"][0] for r in again.records if r.get("skipped"))

    return again


def test_what_an_earlier_run_finished_is_skipped(loop, again):
    assert again() == ("abc", "")
    first = again.records
    assert again() == ("", "abc")
    assert again.records == [{**record, "skipped": True} for record in first]
    assert again(redo=True) == ("abc", "")
    code, out, err = loop(write, redo=False)
    line = "3 skipped, finished by an earlier run (--redo does all again)"
    assert (code, out[-2:], err) == (0, [line, "3 of 3 done"], [])
    assert out[0] == "(skipped) a.png has 97"
    assert loop(write, redo=False, quiet=True) == (0, [], [])
    assert loop(write, redo=False, summary="")[1][-1] == line
    assert len(list(Path("out/.unpool/ledger").iterdir())) == 1


def test_what_differs_is_done_again(again):
    assert again(size=3) == ("abc", "")
    assert again(size=4) == ("abc", "")
    assert again(size=4, network="other") == ("abc", "")
    # results of another procedure stand there now, though this one was finished once
    Path("out/b.txt").write_text("of another procedure")
    assert again(size=4, network="other") == ("b", "ac")
    Path("out/c.txt").unlink()
    assert again(size=4, network="other") == ("c", "ab")
    Image.new("RGB", (4, 5)).save("a.png")
    assert again(size=4, network="other") == ("a", "bc")
    assert again(size=4, network="other") == ("", "abc")
    assert again(size=4, network="other", device="cuda", quiet=True) == ("", "abc")
    Path("names").write_text("one")
    assert again(names=Path("names")) == ("abc", "")
    Path("names").write_text("two")
    assert again(names=Path("names")) == ("abc", "")


def test_results_may_move(again, monkeypatch, tmp_path):
    again()
    first = again.records
    (tmp_path / "elsewhere").mkdir()
    for name in ("out", *(f"{n}.png" for n in "abc")):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    monkeypatch.chdir("elsewhere")
    (tmp_path / "out").symlink_to("elsewhere/out")
    assert again() == ("", "abc")
    assert again.records == [{**record, "skipped": True} for record in first]


def test_failures_are_tried_again(again):
    def make(source, stem, progress):
        record = write(source, stem, progress)
        if str(source) == "b.png":
            raise DataError("got no luck")
        return record

    assert again(make) == ("abc", "")
    assert again(make) == ("b", "ac")
    (ledger,) = Path("out/.unpool/ledger").iterdir()
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(row["name"], row.get("error")) for row in rows] == [
        ("a", None),
        ("b", "got no luck"),
        ("c", None),
        ("b", "got no luck"),
    ]
    assert again() == ("b", "ac")
    assert again() == ("", "abc")


def test_inputs_that_are_no_images_are_reported_first(loop):
    found = loop.found._replace(unusable=[Unusable("d.png", "d.png: does not exist")])
    code, out, err = loop(shade, found)
    assert (code, out[-1], err) == (3, "3 of 4 done", ["unpool: d.png: does not exist"])
    code, out, err = loop(shade, found, as_json=True)
    assert json.loads(out[0]) == {"source": "d.png", "error": "d.png: does not exist"}


def test_progress_within_an_image_counts_for_the_whole(loop, monkeypatch):
    seen = []

    class Recorder:
        def __enter__(self):
            return lambda done, total, what="": seen.append((done, total, what))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("unpool.cli.console.progress", lambda what, quiet: Recorder())
    loop(shade)
    assert [done for done, *_ in seen] == [0, 0.5, 1, 1, 1.5, 2, 2, 2.5, 3]
    assert {tuple(rest) for _, *rest in seen} == {(3, "looking")}


def test_standard_input_is_a_dash(loop, monkeypatch):

    with open("a.png", "rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        found = Found([Source(None, PurePosixPath("stdin"))], [])
        for _ in range(2):  # it is never skipped: what it holds is not known before
            assert loop(shade, found, redo=False) == (0, ["- has 97", "1 of 1 done"], [])
            file.seek(0)


def test_images_that_are_read_by_a_guess_are_noted(loop):
    """12 bits in 16: in the record of each such image, and once on standard error."""
    for name in "ac":
        Image.fromarray(np.full((4, 5), 4080, np.uint16)).save(f"{name}.png")
    with console.plain_warnings():
        code, out, err = loop(shade, as_json=True)
    records = [json.loads(line) for line in out]
    note = "16-bit images without values above 4095 are read as 12-bit images"
    assert code == 0
    assert [record["shade"] for record in records] == [255, ord("b"), 255]
    assert [[text[: len(note)] for text in record.get("warnings", [])] for record in records] == [
        [note], [], [note],
    ]  # fmt: skip
    assert [line for line in err if "warning" in line] == [
        f"unpool: warning: {records[0]['warnings'][0]}"
    ]


def visible_files(folder):
    return {k.partition("/")[2]: v for k, v in hashes(folder).items() if "/.unpool/" not in k}


def test_workers_write_what_the_plain_loop_does(run, weights):
    make_good()
    Path("in/broken.png").write_text("no image")
    args = ["segment", "in", "--weights", weights, "--format", "mask,coco,yolo", "--json"]
    plain = run(*args, "-o", "plain")
    several = run(*args, "-o", "several", "--workers", "2")
    for i in (1, 2):
        assert run(*args, "-o", "parts", "--shard", f"{i}/2")[0] in (0, 3)
    assert not Path("parts/annotations.coco.json").exists()
    assert run(*args, "-o", "parts")[0] == 3  # all are done; it writes the files of all
    assert plain[0] == several[0] == 3
    assert len(plain[1]) == len(several[1]) == 13
    expected = visible_files("plain")
    assert len(expected) == 12 * 3 + 2
    assert visible_files("several") == visible_files("parts") == expected


def test_images_in_a_tar_file(run, weights):
    make_good()
    with tarfile.open("x.tar", "w") as archive:
        archive.add("in", ".")
    args = ["--weights", weights, "--quiet"]
    assert run("segment", "in", "-o", "files", *args) == (0, [], [])
    assert run("segment", "x.tar", "-o", "tar", *args) == (0, [], [])
    inside = {name.removeprefix("x/"): v for name, v in visible_files("tar").items()}
    assert inside == visible_files("files")
    code, out, _ = run("segment", "x.tar", "-o", "tar", "--weights", weights)
    assert (code, out[-1]) == (0, "12 of 12 segmented, into tar")
    assert sum(line.startswith("(skipped) x.tar/") for line in out) == 12
    with tarfile.open("x.tar", "a") as archive:
        archive.add("in/rgb.jpg", "new.jpg")
    assert "12 skipped" in run("segment", "x.tar", "-o", "tar", "--weights", weights)[1][-2]


def test_parquet_holds_what_the_coco_file_does(run, refused, weights, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    make_good()
    args = ["--weights", weights, "--no-overlay", "--quiet"]
    assert run("segment", "in", "-o", "out", "--format", "parquet,coco", *args)[0] == 0
    assert {name for name in results("out") if not name.startswith(".unpool")} == {
        *("segments.parquet", "annotations.coco.json")
    }
    coco = json.loads(Path("out/annotations.coco.json").read_text())
    rows = pq.read_table("out/segments.parquet").to_pylist()
    assert [row["file_name"] for row in rows] == [image["file_name"] for image in coco["images"]]
    found = [entry for row in rows for entry in row["annotations"]]
    for entry, other in zip(found, coco["annotations"], strict=True):
        assert entry.pop("score") == pytest.approx(other.pop("score"))
        assert entry == {k: v for k, v in other.items() if k not in ("id", "image_id")}
    for i in (1, 2):
        more = ["--format", "parquet", "--shard", f"{i}/2", "--workers", "1"]
        assert run("segment", "in", "-o", "parts", *args, *more)[0] == 0
    files = sorted(Path("parts").glob("*.parquet"))
    assert [file.name for file in files] == [f"segments-0000{i}-of-00002.parquet" for i in (1, 2)]
    parts = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert sorted(row["name"] for row in parts) == sorted(row["name"] for row in rows)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow" in refused("segment", "in", "--format", "parquet", *args)
