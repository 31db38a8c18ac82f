"""Check predictions by Label Studio's own SDK, in an environment of its own.

Reads JSON with `config` and `predictions`; writes the `errors`, and of each region its mask, row by
row.
"""

import json
import sys


def main() -> None:
    """Check what stands on the standard input."""
    from label_studio_sdk.converter import brush
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import PredictionValue

    given = json.load(sys.stdin)
    interface = LabelInterface(given["config"])
    errors, masks = [], []
    for prediction in given["predictions"]:
        errors += interface.validate_prediction(prediction, return_errors=True)
        PredictionValue(**prediction)
        for region in prediction["result"]:
            alpha = brush.decode_rle(region["value"]["rle"])[3::4]
            masks.append([int(value > 0) for value in alpha])
    print(json.dumps({"errors": errors, "masks": masks}))


if __name__ == "__main__":
    main()
