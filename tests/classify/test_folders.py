"""Class folders: what is found in them, what is refused, and the crops that are cut."""

import numpy as np
import pytest
from PIL import Image

from unpool.classify.folders import draw_crops, open_folders, require_images
from unpool.errors import DataError, ImageError
from unpool.vision.boxes import Crops

GRAY = np.full((6, 8, 3), 128, np.uint8)


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GRAY).save(root / name)


def names(data):
    return [sample.name for sample in data.samples]


def test_splits_are_folders(tmp_path):
    put(tmp_path, "train/dog/b.png", "train/dog/a.JPG", "train/cat/c.png", "val/dog/d.webp")
    put(tmp_path, "train/cat/deep/c.png")
    learn = open_folders(tmp_path, "train")
    assert learn.classes == ["cat", "dog"]
    wanted = ["cat/c.png", "cat/deep/c.png", "dog/a.JPG", "dog/b.png"]
    assert names(learn) == [f"train/{name}" for name in wanted]
    assert [sample.label for sample in learn.samples] == [0, 0, 1, 1]
    choose = open_folders(tmp_path, "val", learn.classes)
    assert [(sample.name, sample.label) for sample in choose.samples] == [("val/dog/d.webp", 1)]
    assert choose.classes == learn.classes


def test_other_names_of_splits_and_hidden_files(tmp_path):
    put(tmp_path, "fit/a/1.png", "fit/b/1.png", "held/a/1.png", "held/b/2.png")
    put(tmp_path, "fit/a/.2.png", "fit/.thumbs/3.png", "fit/a/.thumbs/3.png")
    (tmp_path / "fit/a/readme.txt").touch()
    assert names(open_folders(tmp_path, "fit")) == ["fit/a/1.png", "fit/b/1.png"]
    with pytest.raises(DataError, match=r"fit, which has folders .* a split, set split or val"):
        open_folders(tmp_path, "train")


def test_a_plain_folder_is_divided_for_good(tmp_path):
    put(tmp_path, *(f"{c}/{i}.png" for c in ("cat", "train") for i in range(40)))
    whole = open_folders(tmp_path, "all")
    learn, choose = (open_folders(tmp_path, split) for split in ("train", "val"))
    assert learn.classes == choose.classes == ["cat", "train"]  # a train is a class here
    assert sorted(names(learn) + names(choose)) == sorted(names(whole))
    assert 4 <= len(choose.samples) <= 30
    put(tmp_path, *(f"cat/{i}.png" for i in range(40, 60)), "zebra/1.png", "zebra/2.png")
    again = open_folders(tmp_path, "val")
    assert set(names(choose)) <= set(names(again))
    assert not set(names(again)) & set(names(learn))


def test_the_rule_of_the_plain_folder_stays_what_it_is(tmp_path):
    """A change would mix images of old runs' validations into their training."""
    put(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    held = {"a": (1, 6, 8), "b": (2, 6, 9)}
    assert names(open_folders(tmp_path, "val")) == [f"{c}/{i}.png" for c in "ab" for i in held[c]]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["a.png", "b.png"], "train", r"with 2 images in no class folder, such as a.png; wanted"),
        (["a.png", "cat/b.png", "dog/b.png"], "train", "with 1 images in no class folder"),
        (["train/a.png", "val/a.png", "b.png"], "train", "with 1 images in no class folder"),
        (["cat/a.png"], "train", "with the class cat alone; .* two or more"),
        (["images/1.png", "masks/1.png"], "train", "images/ and masks/, a data set with masks"),
        (["JPEGImages/1.png", "SegmentationClass/1.png"], "train", "a segmentation recipe"),
        (
            ["train/a/1.png", "train/b/1.png"],
            "val",
            r"got split 'val' of .*, which has train; pass",
        ),
        (["a/1.png", "b/1.png"], "test", "there are train, val, all"),
        (["a/notes.md", "b/notes.md"], "train", "where no folder holds an image"),
        ([], "train", "where no folder holds an image"),
        (["a/1.png", "b/notes.md"], "all", r"/b without images \(.jpg"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"],
            "val",
            "classes c, which",
        ),
        (["a/0.png", "b/1.png"], "val", "for val; too few images"),
        (["a/1.png", "b/1.png"], "train", "no image of the class a for train"),
    ],
)
def test_other_folders_are_refused(tmp_path, files, split, message):
    for file in files:
        if file.endswith("md"):
            (tmp_path / file).parent.mkdir(parents=True)
            (tmp_path / file).touch()
        else:
            put(tmp_path, file)
    known = ["a", "b"] if "classes c" in message else None
    with pytest.raises(DataError, match=message):
        open_folders(tmp_path, split, known)


def test_what_is_no_folder_or_no_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder; pass one with a folder for each class"):
        open_folders(tmp_path / "nothing", "train")
    put(tmp_path, "train/a/1.png", "train/b/1.png")
    (tmp_path / "train/b/2.png").write_text("no image")
    with pytest.raises(ImageError, match=r"b/2\.png"):
        require_images(open_folders(tmp_path, "train"))
    (tmp_path / "train/b/2.png").unlink()
    require_images(open_folders(tmp_path, "train"))


# ---- crops ---------------------------------------------------------------------------------------


def ramp(height, width):
    """An image whose red grows along the rows, its green along the columns."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)
    return image


def test_the_published_crops_are_five_places_and_their_mirror_images():
    crops = Crops(6, 10, corners=True, flip=True)
    image = ramp(10, 20)  # of which the columns 5 to 14 are the middle square
    found = {crops.draw(image, np.random.default_rng(i)).tobytes() for i in range(300)}
    wanted = set()
    for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        part = image[y : y + 6, 5 + x : 11 + x]
        wanted |= {np.ascontiguousarray(p).tobytes() for p in (part, part[:, ::-1])}
    assert found == wanted


def test_crops_anywhere_are_parts_of_the_middle_square():
    crops = Crops(6, 10, corners=False, flip=False)
    image = ramp(16, 10)  # rows 3 to 12
    seen = set()
    for i in range(400):
        crop = crops.draw(image, np.random.default_rng(i))
        y, x = crop[0, 0, :2].tolist()
        assert (crop == image[y : y + 6, x : x + 6]).all()
        seen.add((y, x))
    assert seen == {(y, x) for y in range(3, 8) for x in range(5)}


@pytest.mark.parametrize("size", [(40, 60), (30, 20), (24, 24)])
def test_a_crop_is_a_part_of_the_resized_image(size):
    """Cutting and resizing in one step is resizing first, as far as rounding goes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    whole = np.array(square.resize((32, 32), Image.Resampling.BILINEAR))
    found = Crops(24, 32).center(image)
    inner = (slice(2, -2), slice(2, -2))  # at its border a crop does not see beyond its box
    difference = found[inner].astype(int) - whole[4:28, 4:28][inner]
    assert np.abs(difference).max() <= 1


def test_every_image_is_seen_once_an_epoch_and_resumed_alike(tmp_path):
    for i in range(7):
        put(tmp_path, f"train/{'ab'[i % 2]}/{i}.png")
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(
            tmp_path / f"train/{'ab'[i % 2]}/{i}.png"
        )
    draw = draw_crops(open_folders(tmp_path, "train"), Crops(8, 8), seed=3)
    drawn = [draw(place) for place in range(14)]
    for epoch in (drawn[:7], drawn[7:]):
        assert sorted(int(image[0, 0, 0]) for image, *_ in epoch) == list(range(7))
    assert all(int(label) == int(image[0, 0, 0]) % 2 for image, label, _ in drawn)
    orders = [[int(image[0, 0, 0]) for image, *_ in epoch] for epoch in (drawn[:7], drawn[7:])]
    assert orders[0] != orders[1]
    again = draw_crops(open_folders(tmp_path, "train"), Crops(8, 8), seed=3)(11)
    assert (again[0] == drawn[11][0]).all()
