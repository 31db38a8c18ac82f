"""No damaged file gives anything but a result or an `UnpoolError` of one line, in bounds.

A fixed number of inputs, the same each time; `make fuzz` tries as many as it can in two minutes.
"""

import sys

import pytest

from tests.fuzz.faulty import FAULTS
from tests.fuzz.harness import fuzz, numbered_input
from tests.fuzz.parsers import PARSERS, valid_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")

NEEDS = {
    "http": "starlette",
    "video": "av",
    "onnx": "onnxruntime",
    "sbd": "scipy",
    "caffemodel": "google.protobuf",
}
"""What the valid files are made or read with, besides what the package needs."""

NAMES = [name for name in PARSERS if name != "faulty"]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    pytest.importorskip(NEEDS.get(name, "unpool"))
    counts = fuzz(name, count=PARSERS[name].count, output=tmp_path)
    assert not counts.faults, counts.saved
    assert counts.inputs == PARSERS[name].count
    assert counts.accepted > 0  # the valid files are among them
    lenient = PARSERS[name].run is PARSERS["coco"].run or name == "ledger"  # which pass over damage
    assert counts.refused > 0 or lenient
    assert counts.peak <= PARSERS[name].memory


def test_every_kind_of_fault_is_found(tmp_path):
    """And the others go on after it, in a fresh process if need be."""
    counts = fuzz("faulty", count=len(FAULTS) + 3, output=tmp_path)
    assert (counts.inputs, counts.accepted, counts.refused) == (len(FAULTS) + 3, 2, 1)
    found = [path.name for path in sorted(counts.saved, key=lambda p: int(p.name[9:]))]
    assert found == [f"faulty-0-{2 + i}" for i in range(len(FAULTS))]
    kinds = [(path / "outcome.txt").read_text().splitlines()[0] for path in counts.saved]
    assert [kind.partition(" in ")[0] for kind in kinds] == list(FAULTS.values())


def test_damage_is_the_same_for_a_seed():
    for name in ("glb", "map"):
        valid = valid_files(PARSERS[name])
        inputs = [numbered_input(name, 5, number, valid) for number in range(40)]
        assert inputs[: len(valid)] == valid
        assert inputs == [numbered_input(name, 5, n, valid_files(PARSERS[name])) for n in range(40)]
        assert inputs != [numbered_input(name, 6, n, valid) for n in range(40)]
        assert all(files != made for files in valid for made in inputs[len(valid) :])
