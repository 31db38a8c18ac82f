"""Results of millions of images as Parquet: a row for each image, with COCO's codes of its objects.

The columns: `name` (of the results), `source`, `file_name`, `content` (the SHA-256 digest by which
the ledger knows the image), `width`, `height`, and `annotations`, a list of those of
`unpool.formats.coco` without their ids. The metadata `categories` is COCO's, as JSON.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpool.errors import OptionError
from unpool.files import atomic, json_line
from unpool.formats.coco import categories, to_coco

if TYPE_CHECKING:
    from unpool.formats.objects import Objects

_ROWS = 1000
"""Images in a row group, some megabytes, which are in memory at once."""


def require_pyarrow() -> None:
    """Raise an `OptionError` without pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise OptionError(
            "got format='parquet', which needs pyarrow: pip install 'unpool[scale]'"
        ) from None


def to_row(objects: "Objects", file_name: str) -> dict[str, Any]:
    """The part of a row that is known from an image's result.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> found = find_objects(np.array([[0, 1, 1], [0, 1, 0]]), ["background", "cat"])
    >>> to_row(found, "cat.jpg")["annotations"][0]["segmentation"]
    {'size': [2, 3], 'counts': '231'}
    """
    coco = to_coco(objects, file_name)
    (image,) = coco["images"]
    left_out = ("id", "image_id")
    rows = [{k: v for k, v in entry.items() if k not in left_out} for entry in coco["annotations"]]
    return {"file_name": file_name, "annotations": rows} | {
        k: image[k] for k in ("width", "height")
    }


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], classes: Sequence[str]) -> None:
    """Write rows as one file, atomically.

    Args:
        path: the file.
        rows: with all columns.
        classes: names by class id.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole, text = pa.int32(), pa.string()
    annotation = pa.struct(
        {
            "category_id": whole,
            "segmentation": pa.struct({"size": pa.list_(whole), "counts": text}),
            "area": pa.int64(),
            "bbox": pa.list_(whole),
            "iscrowd": pa.int8(),
            "score": pa.float32(),
        }
    )
    columns = dict.fromkeys(("name", "source", "file_name", "content"), text)
    columns |= {"width": whole, "height": whole, "annotations": pa.list_(annotation)}
    schema = pa.schema(columns, metadata={"categories": json_line(categories(classes))})
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        rows = iter(rows)
        while some := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema))
