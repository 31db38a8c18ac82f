import os
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unpool.errors import ImageError, OptionError
from unpool.vision import sources
from unpool.vision.images import SUFFIXES
from unpool.vision.sources import Source, Unusable, _names, find_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*inputs: str, output: str | None = None) -> dict[str, str]:
    images, unusable, unread = find_images(inputs, output and Path(output))
    assert not unusable
    assert not unread
    return {str(source.path or "-"): str(source.name) for source in images}


def test_a_file_is_named_by_its_stem(folder):
    touch("a/cat.jpg", "odd.raw", "none")
    assert find_images([str(folder / "a" / "cat.jpg")]) == (
        [Source(folder / "a" / "cat.jpg", PurePosixPath("cat"))],
        [],
        [],
    )
    assert found("odd.raw", "none") == {"odd.raw": "odd", "none": "none"}


def test_a_folder_keeps_its_tree(folder):
    touch("in/b/x.PNG", "in/a.jpeg", "in/b/c/y.tiff", "in/notes.txt", "in/Thumbs.db", "in/v.2.webp")
    touch("in/.hidden.jpg", "in/.git/z.jpg")
    expected = {"a.jpeg": "a", "b/c/y.tiff": "b/c/y", "b/x.PNG": "b/x", "v.2.webp": "v.2"}
    assert found("in") == {f"in/{path}": name for path, name in expected.items()}
    assert list(found("in").values()) == list(expected.values())  # in order
    assert list(found("in/").values()) == list(expected.values())
    assert list(found("in/../in").values()) == list(expected.values())
    os.chdir("in/b")
    assert found(".") == {"c/y.tiff": "c/y", "x.PNG": "x"}
    assert found("..")["../b/c/y.tiff"] == "b/c/y"


def test_broken_files_in_a_folder_are_found(folder):
    touch("in/empty.jpg")
    Path("in/link.png").symlink_to("nowhere")
    Path("in/text.png").write_text("no image")
    assert set(found("in").values()) == {"empty", "link", "text"}


def test_patterns_keep_the_tree_below_their_fixed_part(folder):
    touch("data/a/x.jpg", "data/b/c/y.png", "data/z.jpg", "data/readme.md", "data/a/.h.jpg")
    everything = {"data/a/x.jpg": "a/x", "data/b/c/y.png": "b/c/y", "data/z.jpg": "z"}
    assert found("data/**") == everything
    assert found("data/**/*.jpg") == {"data/a/x.jpg": "a/x", "data/z.jpg": "z"}
    assert found("data/*") == {"data/z.jpg": "z"}
    assert found("d*/?.jpg") == {"data/z.jpg": "data/z"}
    assert found("./data/[yz].jpg") == {"data/z.jpg": "z"}
    assert found(f"{folder}/data/a/*") == {f"{folder}/data/a/x.jpg": "x"}
    os.chdir("data/a")
    assert found("../b/**/*.png") == {"../b/c/y.png": "c/y"}
    assert found("../*/../z.jpg")  # names without ".." all the same
    assert set(found("../*/../z.jpg").values()) == {"a/z"}


def test_a_file_with_the_signs_of_a_pattern_is_a_file(folder):
    touch("cat[1].jpg", "cat1.jpg")
    assert found("cat[1].jpg") == {"cat[1].jpg": "cat[1]"}


def test_list_files(folder):
    touch("lists/near/a.jpg", "far/b.raw", "c.png")
    Path("lists/train.txt").write_text(
        f"\ufeff# images\n\nnear/a.jpg\r\n  far/b.raw  \n{folder}/c.png\n../c.png\n"
    )
    assert found("lists/train.txt") == {
        "lists/near/a.jpg": "near/a",  # beside the list
        "far/b.raw": "far/b",  # in the current folder
        f"{folder}/c.png": "c",  # absolute, and kept once
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"# none\n\n", r"read as a list of images; it has no lines: write a path on each line$"),
        (
            b"\nin\n",
            r"read .*; line 2 \(in\) is not a file in \. or the current folder: write a path",
        ),
        (
            b"Dear\nreader\n",
            r"read .* images; line 1 \(Dear\) is not a file in .*, nor is any other line: write",
        ),
        (b"\xff\xfe\x00", r"which is not text in UTF-8 \(.*\); save it as UTF-8"),
    ],
)
def test_files_that_are_not_lists(folder, text, message):
    touch("a.jpg", "in/x.jpg")
    Path("list.txt").write_bytes(text)
    with pytest.raises(ImageError, match=rf"^got list\.txt, {message}"):
        find_images(["list.txt"])
    sources, unusable, _ = find_images(["list.txt", "a.jpg"])
    assert [source.path for source in sources] == [Path("a.jpg")]
    assert [bad.source for bad in unusable] == ["list.txt"]


def test_bad_lines_of_a_list_are_reported_one_by_one(folder):
    touch("a.jpg", "c.jpg", "in/x.jpg")
    Path("list.txt").write_text(f"a.jpg\n\nb.jpg\nc.jpg\nin\n{'x' * 5000}\n")
    sources, unusable, _ = find_images(["list.txt"])
    assert [str(source.path) for source in sources] == ["a.jpg", "c.jpg"]
    assert unusable[:2] == [
        Unusable(
            line,
            f"got list.txt, read as a list of images; line {i} ({line}) is not a file in . or "
            "the current folder: correct or remove it",
        )
        for i, line in ((3, "b.jpg"), (5, "in"))
    ]
    assert len(unusable[2].error) < 250


def test_standard_input(folder):
    touch("stdin.jpg")
    assert find_images(["-", "-"]) == ([Source(None, PurePosixPath("stdin"))], [], [])
    assert found("stdin.jpg", "-") == {"stdin.jpg": "stdin_jpg", "-": "stdin"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.jpg", r"nowhere\.jpg: does not exist; check the path"),
        ("empty", r"empty: holds no images \(\.apng .*\.webp\); check the path"),
        ("*.jpg", r"\*\.jpg: holds no images"),
        ("texts", "texts: holds no images"),
        ("x" * 5000, "does not exist"),
        ("", "does not exist"),
    ],
)
def test_inputs_without_images(folder, text, message):
    touch("texts/a.md")
    Path("empty").mkdir()
    with pytest.raises(ImageError, match=message) as caught:
        find_images([text])
    touch("good/cat.jpg")
    sources, unusable, _ = find_images([text, "good", text])  # reported once, and the rest is done
    assert sources == [Source(Path("good/cat.jpg"), PurePosixPath("cat"))]
    assert unusable == [Unusable(text, str(caught.value))]
    if text:
        with pytest.raises(ImageError, match=r"check the path \(2 more cannot be used\)$"):
            find_images([text, "none.jpg", "neither.jpg"])


def test_no_input():
    with pytest.raises(OptionError, match="got no input; name files, folders"):
        find_images([])


def test_a_folder_that_cannot_be_listed(folder, monkeypatch):
    touch("in/locked/a.jpg", "in/b.jpg")

    def scandir(path):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    original = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    assert find_images(["in"]) == (
        [Source(Path("in/b.jpg"), PurePosixPath("b"))],
        [Unusable("in/locked", "in/locked: cannot be listed; change its permissions")],
        [],
    )
    with pytest.raises(ImageError, match=r"^in/locked: cannot be listed; change its permissions$"):
        find_images(["in/locked"])


@pytest.mark.parametrize("output", ["in/out", "./in/../in/out", "link"])
@pytest.mark.parametrize("inputs", ["in", ".", "**/*.*", "in/*/*.png"])
def test_a_search_passes_over_the_output_folder(folder, inputs, output):
    touch("in/cat.jpg", "in/other/dog.png", "in/outer/cow.png")
    Path("link").symlink_to("in/out")
    before = set(found(inputs, output=output))
    touch("in/out/cat.png", "in/out/cat.overlay.jpg", "in/out/other/dog.png")
    assert set(found(inputs, output=output)) == before
    assert before
    assert set(found(inputs)) > before


def test_what_is_named_is_taken_from_the_output_folder_too(folder):
    touch("out/cat.png", "out/old/dog.png")
    Path("list.txt").write_text("out/old/dog.png\n")
    assert found("out/cat.png", "list.txt", output="out") == {
        "out/cat.png": "cat",
        "out/old/dog.png": "out/old/dog",
    }
    assert found("out/old", output="out") == {"out/old/dog.png": "dog"}  # the search begins inside
    assert found("out", output="out/old") == {"out/cat.png": "cat"}


@pytest.mark.parametrize("inputs", ["out", "out/*", ".", "**/*.png"])
def test_an_output_folder_that_holds_all_inputs(folder, inputs):
    touch("out/cat.png", "out/old/dog.png")
    with pytest.raises(
        ImageError, match="has no images but those in the output folder out; choose another"
    ):
        find_images([inputs], Path("out"))


def test_the_same_file_is_kept_once(folder):
    touch("in/cat.jpg", "in/dog.jpg")
    inputs = ["in/dog.jpg", "in", "./in/cat.jpg", str(folder / "in" / "cat.jpg"), "in/*.jpg"]
    assert found(*inputs) == {"in/dog.jpg": "dog", "in/cat.jpg": "cat"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/cat.jpg", "b/cat.jpg", "c/cat.jpg"], ["cat_jpg", "cat_jpg_2", "cat_jpg_3"]),
        (["cat.jpg", "cat.png"], ["cat_jpg", "cat_png"]),
        (["cat.jpg", "cat.JPG"], ["cat_jpg", "cat_JPG_2"]),
        (["cat.jpg", "Cat.png", "dog.jpg"], ["cat_jpg", "Cat_png", "dog"]),
        (["cat.jpg", "cat.png", "cat_jpg.gif"], ["cat_jpg_2", "cat_png", "cat_jpg"]),
        (["cat.jpg", "cat.overlay.jpg"], ["cat", "cat.overlay_jpg"]),
        (["cat", "cat.jpg"], ["cat", "cat_jpg"]),
        (["é.jpg", unicodedata.normalize("NFD", "É.jpg")], ["é_jpg", "É_jpg_2"]),
    ],
)
def test_names_differ(folder, files, names):
    touch(*files)
    assert [unicodedata.normalize("NFC", name) for name in found(*files).values()] == names


def test_two_folders_with_the_same_tree(folder):
    touch("a/x/cat.jpg", "b/x/cat.jpg")
    assert found("a", "b") == {"a/x/cat.jpg": "x/cat_jpg", "b/x/cat.jpg": "x/cat_jpg_2"}


part = st.sampled_from(["a", "A", "a_jpg", "a_JPG_2", "a.overlay", "a.b", "stdin", "é", "e\u0301"])
suffix = st.sampled_from(["", ".jpg", ".JPG", ".png", ".overlay", ".overlay.jpg"])
files = st.builds(lambda folders, stem, end: PurePosixPath(*folders, stem + end),
                  st.lists(part, max_size=2), part, suffix)  # fmt: skip


@given(st.lists(files, max_size=12))
def test_results_differ_whatever_the_files(paths):
    names = _names(paths)
    results = [f"{name}{end}" for name in names for end in (".png", ".overlay.jpg")]
    alike = {unicodedata.normalize("NFC", result).casefold() for result in results}
    assert len(alike) == len(results)
    assert [name.parent for name in names] == [path.parent for path in paths]
    assert not any(".." in name.parts or name.is_absolute() for name in names)
    assert _names(paths) == names


def test_ten_thousand_of_one_name_are_quick():
    names = _names([PurePosixPath("rgb.png")] * 10_000)
    assert names[-1] == PurePosixPath("rgb_png_10000")


def test_images_that_are_not_read_are_counted(folder):
    touch(
        "in/a.jpg",
        "in/b.HEIC",
        "in/c/d.heic",
        "in/c/e.psd",
        "in/.f.heic",
        "in/g.md",
        "in/out/h.cr2",
    )
    found = find_images(["in", "in/c/*", "in/*.jpg"], Path("in/out"))
    assert [source.path for source in found.sources] == [Path("in/a.jpg")]
    assert [bad.source for bad in found.unusable] == ["in/c/*"]
    assert found.unusable[0].error == (
        "in/c/*: 1 .heic, 1 .psd not read; convert them to JPEG or PNG"
    )
    assert list(map(str, found.unread)) == [
        "in: 2 .heic, 1 .psd not read; convert them to JPEG or PNG"
    ]
    with pytest.raises(
        ImageError, match=r"^in/c: 1 \.heic, 1 \.psd not read; convert them to JPEG"
    ):
        find_images(["in/c"])


def test_no_suffix_is_both_read_and_not():
    assert sources._UNREAD.isdisjoint(SUFFIXES)


def test_formats_that_pillow_reads_by_a_program_are_not_read():
    assert {".eps", ".wmf", ".emf"} <= sources._UNREAD


def test_lists_that_are_pipes_are_not_opened(folder):
    os.mkfifo("list.txt")
    with pytest.raises(ImageError, match=r"list\.txt, which is a pipe, device or socket"):
        find_images(["list.txt"])


def test_lists_with_odd_names(folder):
    touch("a.jpg")
    Path("list.txt").write_bytes(b"a.jpg\nb\0c.jpg\n" + b"d" * 5000 + b"\n")
    found = find_images(["list.txt"])
    assert [source.path for source in found.sources] == [Path("a.jpg")]
    assert len(found.unusable) == 2
    assert all("is not a file in" in bad.error for bad in found.unusable)
    assert r"(b\x00c.jpg)" in found.unusable[0].error  # which a terminal can show
