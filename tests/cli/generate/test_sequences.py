"""`unpool generate interpolate`, `morph`, `transform` and `correspond`, with a small network."""

import cv2
import pytest

from tests.cli.generate.files import frames, size
from unpool.generate import CHANGES


def test_interpolate(printed):
    assert printed("interpolate", "--style", 0, "--count", 6)["images"] == 6
    assert frames("turn.gif") == 6
    record = printed(
        "interpolate", "--style", 0, "--azimuth", "30,60", "--elevation", "20,60", "--count", 4,
        "-o", "there.gif",
    )  # fmt: skip
    assert (frames("there.gif"), record["images"]) == (6, 6)  # and back
    assert record["notes"] == [
        "elevation 33.3333 is beyond the 20 to 30 of the training",
        "elevation 46.6667 is beyond the 20 to 30 of the training",
        "elevation 60 is beyond the 20 to 30 of the training",
    ]
    printed("interpolate", "--style", 0, "--azimuth", "0,90", "--count", 3, "-o", "row.png")
    assert size("row.png") == (3 * 34 - 2, 32)


def test_changes_apply_to_all_views(printed):
    change = ["--change", "hue=1", "--change", "zoom=0.2"]
    printed("view", "--style", 0, "--azimuth", 90, *change, "--background", "white")
    printed(
        "interpolate", "--style", 0, "--azimuth", "90,180", "--count", 2, *change, "-o", "a.png"
    )
    printed("morph", "--from", 0, "--to", 1, "--azimuth", 90, "--elevation", 20, "--count", 2,
            *change, "-o", "b.png")  # fmt: skip
    view, turned, morphed = (cv2.imread(f"{name}.png").astype(int) for name in ("view", "a", "b"))
    assert abs(turned[:, :32] - view).max() <= 1
    assert abs(morphed[:, :32] - view).max() <= 1


def test_morph(printed):
    record = printed(
        "morph", "--from", "armchair", "--to", "stool", "--count", 5, "-o", "morph.gif"
    )
    assert frames("morph.gif") == record["images"] == 8
    assert record["fractions"][0] == 1
    assert printed("morph", "--from", 0, "--to", 1, "-o", "row.png")["fractions"] == [
        1, 0.65, 0.57, 0.5, 0.43, 0.35, 0,
    ]  # fmt: skip
    assert size("row.png") == (7 * 34 - 2, 32)
    printed("morph", "--from", 0, "--to", 1, "--count", 3, "-o", "film.mp4", "--scale", 2)
    film = cv2.VideoCapture("film.mp4")
    read = 0
    while (found := film.read())[0]:
        assert found[1].shape == (64, 64, 3)
        read += 1
    assert read == 4


def test_transform(printed):
    record = printed("transform", "--style", "stool")
    assert record["changes"] == list(CHANGES)
    assert size("transform.png") == tuple(record["size"]) == (7 * (32 + 10) + 10, 500)
    args = ["--change", "zoom", "--ends", "0,0.5", "--count", 3, "-o", "zoom.gif"]
    printed("transform", "--style", 0, *args)
    assert frames("zoom.gif") == 4


def test_correspond(printed):
    record = printed("correspond", "--from", 0, "--to", 2, "--steps", 3, "--points", 5)
    assert len(record["points"]) == len(record["matches"]) == 5
    assert size("correspond.png") == (2 * 32 * 4, 32 * 4)
    args = ["--point", "10,12", "--point", "3,4", "-o", "way.gif"]
    record = printed("correspond", "--from", 0, "--to", 2, "--steps", 3, *args)
    assert record["points"] == [[10, 12], [3, 4]]
    assert frames("way.gif") == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("interpolate --style 0 --azimuth 3", "got '3'; wanted numbers with commas, such as 0,360"),
        ("interpolate --style 0 --azimuth 0,nan", "wanted numbers with commas"),
        ("interpolate --style 0 --count 1", "1 is not in the range 2<=x<=1000"),
        ("morph --from 0 --to nobody", "got style 'nobody'"),
        ("correspond --from 0 --to 1 --point 99,1", "got the point 99, 1, which is outside"),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)
