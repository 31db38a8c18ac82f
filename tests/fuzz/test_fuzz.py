"""No damaged file gives anything but a result or an `UnpoolError` of one line, in bounds.

A fixed number of inputs, the same each time; `make fuzz` tries as many as it can in two minutes.
"""

import pytest

from tests.fuzz.harness import MEMORY, fuzz
from tests.fuzz.parsers import PARSERS

WAITING: dict[str, str] = {
    "checkpoint": "errors of damaged records",
    "glb": "errors of meshes",
    "layouts": "control characters in findings",
    "obj": "errors of meshes",
    "onnx": "errors of networks with other inputs",
    "recipe": "deeply nested values",
}
"""Parsers with known faults, and what is to be done."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.xfail(reason=WAITING[n], strict=True))
        if n in WAITING
        else n
        for n in PARSERS
    ],
)
def test_damaged_files_are_read_or_refused(name):
    counts = fuzz(name, count=PARSERS[name].count)
    assert not counts.faults
    assert counts.inputs == PARSERS[name].count
    assert counts.accepted > 0  # the valid files are among them
    assert counts.refused > 0 or name == "sbd"  # whose masks are findings
    assert counts.peak <= MEMORY
