"""What the protocols share: JSON bodies, and the classes of a segmented image."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unpool.segment.result import Segmentation


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refusal: 400 if it is something else.

    >>> parse_object(b'{"inputs": ""}')
    {'inputs': ''}
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "got a body that is no JSON object; send one")
    return found


def present_classes(
    result: "Segmentation",
) -> Iterator[tuple[int, str, float, "NDArray[np.bool_]"]]:
    """The classes of an image, the largest first: id, name, mean confidence and mask (H, W)."""
    for name in result.fractions():
        if name in result.classes:
            number = result.classes.index(name)
            mask = result.labels == number
            yield number, name, round(float(result.confidence[mask].mean()), 4), mask
