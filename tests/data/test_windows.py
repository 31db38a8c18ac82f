import os

import numpy as np
import pytest

from unpool.data.crops import WindowCrop, draw_windows
from unpool.data.windows import (
    Window,
    find_proposals,
    object_windows,
    proposal_windows,
    read_windows,
    repeat_rare,
    write_windows,
)
from unpool.errors import DataError


def test_stage_1_has_a_square_around_each_object(scene):
    bar, block = object_windows(scene)
    assert (bar.label, block.label) == (1, 2)
    assert bar.box == (13 - 18, 20 - 18, 13 + 18, 20 + 18)  # 1.2 times 30, around (13, 20)
    assert block.box[2] - block.box[0] == 29  # 1.2 times 24
    assert object_windows(scene, least=299) == [bar]


def test_stage_2_keeps_proposals_that_overlap_an_object_and_all_labels(scene):
    boxes = np.array([[8, 5, 18, 35], [8, 5, 18, 20], [8, 5, 18, 19], [50, 0, 60, 10]])
    windows = proposal_windows(scene, [boxes])
    assert [w.label for w in windows] == [1, 1, 2]  # IoU 1 and .5, not .47; the block by itself
    assert {w.instance for w in windows} == {0}
    assert windows[2].box == object_windows(scene)[1].box
    assert len(proposal_windows(scene, [boxes], threshold=0.4)) == 4
    _, labels, _ = draw_windows(windows[:1], 8, WindowCrop(36, 36, flip=False))(0)
    assert {1, 2} <= set(np.unique(labels))


def test_windows_of_rare_classes_are_repeated(scene):
    sample = scene.samples[0]
    windows = [Window(sample, (0, 0, 9, 9), label) for label in [1] * 12 + [2] * 5 + [3]]
    for power, wanted in [(1.0, (12, 12, 12)), (0.0, (12, 5, 1)), (0.5, (12, 7, 3))]:
        count = np.bincount([w.label for w in repeat_rare(windows, power)])
        assert tuple(count[1:]) == wanted
    assert set(repeat_rare(windows)) == set(windows)


def test_lists_in_the_authors_format_are_written_and_read(scene, tmp_path):
    windows = [Window(scene.samples[0], box) for box in [(-20, 4, 31, 55), (0, 0, 9, 9)]]
    write_windows(tmp_path / "list.txt", windows, tmp_path)
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert lines[0] == "/JPEGImages/a.png /SegmentationClass/a.png -20 4 30 54"
    again = read_windows(tmp_path / "list.txt", tmp_path)
    assert [w.box for w in again] == [w.box for w in windows]
    assert [w.sample.mask for w in again] == [scene.samples[0].mask] * 2
    (tmp_path / "bad.txt").write_text("/a.png /b.png 1 2 3\n")
    with pytest.raises(DataError, match=r"line 1 of .*wanted /IMAGE /MASK x1 y1 x2 y2"):
        read_windows(tmp_path / "bad.txt", tmp_path)


def test_proposals_are_read_from_their_cache(scene, tmp_path, monkeypatch):
    calls = []
    found = find_proposals(scene, 20, tmp_path / "p.npz", lambda *done: calls.append(done))
    assert calls == [(1, 1, "finding proposals")]
    monkeypatch.setattr("unpool.data.windows.propose", None)  # would fail
    again = find_proposals(scene, 20, tmp_path / "p.npz")
    np.testing.assert_array_equal(again[0], found[0])
    assert found[0].shape[1] == 4
    with pytest.raises(TypeError):
        find_proposals(scene, 21, tmp_path / "p.npz")  # other ones
    os.utime(scene.samples[0].image, (1, 1))
    with pytest.raises(TypeError):
        find_proposals(scene, 20, tmp_path / "p.npz")  # another image of that name


@pytest.mark.parametrize(
    "harm",
    [
        lambda path, stored: path.write_bytes(b""),
        lambda path, stored: path.write_bytes(path.read_bytes()[:-30]),
        lambda path, stored: np.savez(path, key=stored["key"]),
        lambda path, stored: np.savez_compressed(path, **stored),
        lambda path, stored: np.savez(path, **stored | {"boxes": np.zeros((4, 3), np.int64)}),
        lambda path, stored: np.savez(path, **stored | {"boxes": np.array([{}], object)}),
        lambda path, stored: np.savez(path, **stored | {"ends": stored["ends"] + 1}),
        lambda path, stored: np.savez(path, **stored | {"ends": np.array([3, 2])}),
    ],
)
def test_a_damaged_cache_is_made_again(scene, tmp_path, harm):
    path = tmp_path / "p.npz"
    found = find_proposals(scene, 20, path)
    whole = path.read_bytes()
    with np.load(path) as file:
        stored = dict(file)
    harm(path, stored)
    np.testing.assert_array_equal(find_proposals(scene, 20, path)[0], found[0])
    assert path.read_bytes() == whole
