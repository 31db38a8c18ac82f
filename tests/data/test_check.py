import json

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS, only, photo
from unpool.cli.check import print_report
from unpool.data import check_data
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask

# the report


def test_a_good_data_set(root):
    report = check_data(root)
    assert report.ok
    assert report.findings == []
    assert report.splits == {"train": 5, "val": 5}
    assert not any(count.objects for count in report.classes)
    assert [(c.name, c.id, c.images, c.pixels) for c in report.classes] == [
        ("background", 0, {"train": 5, "val": 5}, {"train": 1500, "val": 1500}),
        ("cat", 1, {"train": 5, "val": 5}, {"train": 750, "val": 750}),
        ("dog", 2, {"train": 5, "val": 5}, {"train": 750, "val": 750}),
    ]


def test_a_good_voc_folder_whose_trainval_is_the_union_of_its_lists(tmp_path):
    lists = {"train": "01234", "val": "56789", "trainval": "0123456789"}
    for split, names in lists.items():
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    for i in range(11):
        write_image(tmp_path / f"JPEGImages/{i}.jpg", photo(i))
    for i in range(10):
        write_mask(tmp_path / f"SegmentationClass/{i}.png", np.resize(np.arange(21), (20, 30)))
    report = check_data(tmp_path)
    assert report.findings == []
    assert report.splits == {"train": 5, "val": 5}
    assert len(report.classes) == 21
    assert check_data(tmp_path, ["trainval"]).splits == {"trainval": 10}


def test_findings_are_lines_that_a_terminal_can_show(root):
    (root / "train.txt").write_text("a\x1b[31m\u202e\n")
    found = [finding for finding in check_data(root).findings if "a\\x1b" in finding.where]
    assert found
    for finding in found:
        assert r"a\x1b[31m\u202e" in finding.where
        assert r"a\x1b[31m\u202e" in finding.message
        assert (finding.where + finding.message).isprintable()


def test_a_report_is_plain_in_json(root):
    (root / "masks/val/7.png").unlink()
    report = check_data(root)
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == ["ok", "layout", "splits", "classes", "findings", "notes"]
    assert plain["ok"] is False
    assert plain["findings"][0]["kind"] == "missing-mask"
    assert plain["classes"][1]["pixels"] == {"train": 750, "val": 600}


def test_progress_and_the_files_as_they_were(root):
    (root / "images/val/7.png").write_bytes(b"not an image")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}
    calls = []
    check_data(root, progress=lambda done, total, doing: calls.append((done, total)))
    assert calls == [(n, 10) for n in range(1, 11)]
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}
    assert after == before


def test_all_findings_are_reported_errors_first(root):
    (root / "masks/train/9.png").write_bytes(b"")
    (root / "masks/train/0.png").unlink()
    (root / "images/val/7.png").write_bytes(b"")
    write_mask(root / "masks/val/7.png", LABELS + 1)
    write_mask(root / "masks/val/8.png", LABELS[1:])
    findings = check_data(root).findings
    errors = ["missing-mask", "unreadable", "size-differs", "unknown-ids"]
    assert [f.kind for f in findings] == [*errors, *["rare-class"] * 3, "extra-mask"]
    assert [f.level for f in findings] == ["error"] * 4 + ["warning"] * 4


def test_folders_and_splits_that_do_not_exist(root, tmp_path_factory):
    with pytest.raises(DataError, match="whose layout is unknown; the layouts are VOC"):
        check_data(tmp_path_factory.mktemp("empty"))
    with pytest.raises(DataError, match=r"got split 'test' .* there are train, val, all: pass"):
        check_data(root, ["train", "test"])


# lists


def test_an_id_without_image(root):
    (root / "train.txt").write_text("".join(f"train/{i}.png\n" for i in (0, 1, 2, 3, 4, 7)))
    level, where, message = only(root, "missing-image", splits=["train"])
    assert (level, where) == ("error", "images/train/7.png")
    assert "found no file for 'train/7.png'" in message


def test_images_whose_classes_alone_are_known(root):
    (root / "masks/train/0.png").unlink()
    kinds = [finding.kind for finding in check_data(root).findings]
    assert kinds[0] == "missing-mask"
    (root / "image_classes.txt").write_text("train/0: dog\nval/5: cat\n")
    report = check_data(root)
    assert report.ok
    assert [finding.kind for finding in report.findings] == kinds[1:]
    assert report.notes == ("1 images have no mask, but classes in image_classes.txt",)
    (root / "image_classes.txt").write_text("train/0: cow")
    found = {finding.kind: finding for finding in check_data(root).findings}
    assert found.keys() == {"image-classes", *kinds}
    assert found["image-classes"].where == "image_classes.txt"


def test_an_empty_split(root):
    (root / "images/test").mkdir()
    level, where, message = only(root, "empty-split")
    assert (level, where) == ("error", "test")
    assert message == f"has no images; put them into {root / 'images/test'}"


def test_too_few_images_for_a_split(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"images/{i}.png", photo(i))
        write_mask(tmp_path / f"masks/{i}.png", LABELS)
    finding = check_data(tmp_path).findings[0]
    assert finding[:3] == ("error", "empty-split", "val")
    assert "every fifth image, and there are 4 in all; add images until" in finding.message
    assert finding.message.endswith("(split=all; for a training run, val=all)")
    assert check_data(tmp_path, ["all"]).ok
    assert check_data(tmp_path).splits == {"train": 4, "val": 0}


def test_an_id_in_two_lists(root):
    (root / "train.txt").write_text("".join(f"train/{i}\n" for i in range(5)))
    (root / "val.txt").write_text("val/5\nval/6\nval/7\nval/8\nval/9\ntrain/3\n")
    level, where, message = only(root, "listed-twice")
    assert (level, where) == ("error", "train, val")
    assert message.startswith("share train/3, wanted disjoint splits")


def test_a_list_that_lies_within_another_is_no_union(root):
    (root / "train.txt").write_text("".join(f"train/{i}\n" for i in range(5)))
    (root / "val.txt").write_text("train/0\ntrain/1\n")
    assert check_data(root).findings[0][:3] == ("error", "listed-twice", "train, val")


def test_an_id_twice_in_a_list(root):
    (root / "train.txt").write_text("train/0\n" * 2 + "".join(f"train/{i}\n" for i in range(1, 5)))
    level, where, message = only(root, "listed-twice", splits=["train"])
    assert (level, where) == ("warning", "train")
    assert message == "lists twice: train/0; list each image once"


def test_labeled_images_in_no_list(root):
    (root / "train.txt").write_text("".join(f"train/{i}\n" for i in range(5)))
    (root / "val.txt").write_text("val/5\nval/6\n")
    level, where, message = only(root, "unlisted")
    assert (level, where) == ("warning", "images")
    assert "in no split: val/7, val/8, val/9; list them" in message


# classes


def test_ids_without_a_name(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"JPEGImages/{i}.png", photo(i))
        write_mask(tmp_path / f"SegmentationClass/{i}.png", np.where(LABELS == 1, 30, LABELS))
    finding = check_data(tmp_path, ["all"]).findings[0]
    assert finding[:3] == ("error", "unknown-ids", "SegmentationClass/0.png")
    assert finding.message.endswith(
        f"write {tmp_path / 'classes.txt'}: one name per line, whose number (from 0) is the class "
        "id"
    )


def test_gray_values_instead_of_ids_are_one_finding(root):
    (root / "classes.txt").unlink()
    for path in root.glob("masks/*/*"):
        write_mask(path, LABELS * 100)
    level, where, message = only(root, "unnamed-classes")
    assert (level, where) == ("error", "masks")
    assert message.startswith("contain the ids 0, 100, 200 and no others, as gray values do; num")


def test_a_class_that_a_split_lacks(root):
    for i in range(5, 10):
        write_mask(root / f"masks/val/{i}.png", LABELS % 2)
    level, where, message = only(root, "empty-class")
    assert (level, where) == ("warning", "dog")
    assert message.startswith("does not occur in val; add")


def test_a_class_that_is_rare_in_train(root):
    write_mask(root / "masks/train/0.png", LABELS % 2)
    write_mask(root / "masks/val/5.png", LABELS % 2)
    level, where, message = only(root, "rare-class")
    assert (level, where) == ("warning", "dog")
    assert message.startswith("occurs in 4 training images, wanted 5")


def test_names_of_classes_that_cannot_be_used(root):
    (root / "classes.txt").write_text("background\ncat\ncat\n")
    level, where, message = only(root, "classes")
    assert (level, where) == ("error", "classes.txt")
    assert "got 'cat' twice" in message
    assert [count.name for count in check_data(root).classes] == [
        "background",
        "class 1",
        "class 2",
    ]


def test_unnamed_classes_are_numbered(root):
    (root / "classes.txt").unlink()
    report = check_data(root)
    assert report.findings == []
    assert [count.name for count in report.classes] == ["background", "class 1", "class 2"]


# copies


def test_the_same_pixels_in_two_splits(root):
    write_image(root / "images/val/7.png", photo(2))
    level, where, message = only(root, "duplicate-across-splits")
    assert (level, where) == ("error", "images/val/7.png")
    assert message.startswith("has the same pixels as train/2 of train; remove one")


def test_the_same_pixels_twice_in_a_split(root):
    (root / "images/val/7.png").unlink()
    Image.fromarray(photo(5)).save(root / "images/val/7.tif")
    level, where, message = only(root, "duplicate-in-split")
    assert (level, where) == ("warning", "images/val/7.tif")
    assert message == "has the same pixels as val/5; remove one, or it counts twice"


@pytest.mark.parametrize("other", ["train/2", "val/6"])
def test_the_same_pixels_with_another_mask(root, other):
    write_image(root / "images/val/7.png", photo(int(other[-1])))
    write_mask(root / "masks/val/7.png", LABELS[:, ::-1])  # as many pixels of each class
    level, where, message = only(root, "contradiction")
    assert (level, where) == ("error" if other == "train/2" else "warning", "images/val/7.png")
    assert message.startswith(f"is the same image as {other}")
    assert "but with another mask; keep the right one" in message


def test_a_smaller_copy_in_another_split(root):
    large = Image.fromarray(photo(20)).resize((120, 80), Image.Resampling.BICUBIC)
    large.save(root / "images/train/2.png")
    write_mask(root / "masks/train/2.png", np.kron(LABELS, np.ones((4, 4), int)))
    (root / "images/val/7.png").unlink()
    large.resize((60, 40)).save(root / "images/val/7.jpg", quality=50)
    write_mask(root / "masks/val/7.png", np.kron(LABELS, np.ones((2, 2), int)))
    level, where, message = only(root, "near-duplicate")
    assert (level, where) == ("warning", "images/val/7.jpg")
    assert message.startswith("looks nearly like train/2 of train; if they are one image")


def test_flat_images_are_not_taken_for_copies(root):
    for i, path in enumerate(root.glob("images/*/*")):
        write_image(path, np.full((20, 30, 3), 20 * i, np.uint8))
    assert check_data(root).findings == []


# what is printed


def test_many_findings_of_a_kind_are_printed_as_few(root, capsys):
    (root / "classes.txt").write_text("background\ncat\ndog\n" + "\n".join("abcdefgh"))
    write_mask(root / "masks/val/7.png", LABELS[1:])
    report = check_data(root)
    print_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(report.findings) == len(report.to_dict()["findings"]) == 17
    assert lines[0].startswith("error: images/val/7.png: is 30 x 20")
    assert sum(line.endswith("(empty-class)") for line in lines) == 10
    assert lines[11] == "warning: and 6 more like that (empty-class), which --json lists"
    assert " ".join(lines[12].split()) == "class train (5): images, pixels val (5): images, pixels"
    assert " ".join(lines[14].split()) == "1 cat 5, 25.0 % 5, 24.7 %"
    assert lines[-1] == "layout: plain"
    assert len(lines) == 25


def test_objects_are_printed_where_they_are_known(root, capsys):
    write_mask(root / "instances/val/7.png", LABELS)
    print_report(check_data(root))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("val (5): images, objects, pixels")
    assert " ".join(lines[3].split()) == "1 cat 5, 0, 25.0 % 5, 1, 25.0 %"
