"""The container of GLB files: JSON, and the numbers in its buffers, bounded by their sizes."""

import base64
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.files import read_bytes
from unpool.limits import MAX_CORNERS, MAX_MODEL, MAX_TEXT

if TYPE_CHECKING:
    from unpool.rendering.textures import Folder

_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_EXTENSIONS = {
    "EXT_texture_webp",
    "KHR_lights_punctual",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
}  # besides those of materials, which the renderer uses or has no light for


class Document:
    """A GLB file: its JSON, and accessors as arrays that share the memory of the file."""

    def __init__(self, content: bytes, folder: "Folder") -> None:
        self.json, self._binary = _split(content)
        self.folder = folder
        self._buffers: dict[int, bytes] = {}
        self._loaded = 0  # bytes of buffers, and of sparse accessors
        self._sparse: dict[int, NDArray[Any]] = {}
        required = self.json.get("extensionsRequired", [])
        for name in required:
            if name not in _EXTENSIONS and not name.startswith("KHR_materials_"):
                cure = "export it without compression and instancing"
                raise DataError(f"needs the glTF extension {name[:60]}, which is not read; {cure}")

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """An object of a list at the top of the file, by its index."""
        items = self.json.get(kind, [])
        if type(index) is not int or not 0 <= index < len(items):
            raise DataError(
                f"refers to {kind} {str(index)[:20]}, which does not exist; export it again"
            )
        item: dict[str, Any] = items[index]
        return item

    def accessor(self, index: Any, widths: tuple[int, ...]) -> NDArray[Any]:
        """The elements of an accessor, (N, width), of any type; a view of the file if possible."""
        accessor = self.item("accessors", index)
        width = _WIDTHS[accessor["type"]]
        if width not in widths:
            got = f"has an accessor of type {accessor['type']} in the wrong place"
            raise DataError(f"{got}; export it again")
        kind = np.dtype(_TYPES[accessor["componentType"]])
        count = whole(accessor, "count", MAX_CORNERS)
        if "sparse" in accessor:
            if index not in self._sparse:
                self._load(count * width * kind.itemsize)
                values = self._elements(accessor, count, width, kind).copy()
                self._sparse[index] = self._fill(values, accessor["sparse"])
            return self._sparse[index]
        return self._elements(accessor, count, width, kind)

    def normalized(self, index: Any) -> bool:
        """Whether the integers of an accessor stand for fractions."""
        return self.item("accessors", index).get("normalized") is True

    def view(self, index: Any) -> tuple[memoryview, int | None]:
        """The bytes of a buffer view, and the distance between its elements."""
        view = self.item("bufferViews", index)
        buffer = self._buffer(view["buffer"])
        start = whole(view, "byteOffset", len(buffer), 0)
        length = whole(view, "byteLength", len(buffer) - start)
        stride = whole(view, "byteStride", 252) if "byteStride" in view else None
        return memoryview(buffer)[start : start + length], stride

    def resolve(self, uri: str) -> bytes | Path:
        """What a URI means: bytes in itself, or a file in the folder of the model.

        Raises:
            DataError: there is no such file.
        """
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            return base64.b64decode(body) if head.endswith(";base64") else unquote(body).encode()
        path = self.folder.find(unquote(uri)) or self.folder.find(uri)
        if path is None:
            raise DataError(f"names {uri[:60]}, which is missing; put it into its folder")
        return path

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item("buffers", index)
        if "uri" not in buffer and index == 0:
            return self._binary
        if index not in self._buffers:
            source = self.resolve(buffer["uri"])
            data = source if isinstance(source, bytes) else read_bytes(source, DataError, MAX_MODEL)
            self._load(len(data))
            self._buffers[index] = data
        return self._buffers[index]

    def _load(self, size: int) -> None:
        """Count memory besides that of the file."""
        self._loaded += size
        if self._loaded > 2 * MAX_MODEL:
            raise DataError(f"has more than {2 * MAX_MODEL:,} bytes of data; simplify the model")

    def _elements(
        self, place: dict[str, Any], count: int, width: int, kind: np.dtype[Any]
    ) -> NDArray[Any]:
        """Elements at a place in a buffer view; zeros without one."""
        if "bufferView" not in place:
            return np.broadcast_to(np.zeros(1, kind), (count, width))
        data, stride = self.view(place["bufferView"])
        size = width * kind.itemsize
        stride = size if stride is None else stride
        start = whole(place, "byteOffset", len(data), 0)
        if stride < size or (count and start + stride * (count - 1) + size > len(data)):
            raise DataError("has an accessor beyond its buffer view; export it again")
        return np.ndarray((count, width), kind, data, start, (stride, kind.itemsize))

    def _fill(self, values: NDArray[Any], sparse: dict[str, Any]) -> NDArray[Any]:
        """Replace the elements of a sparse accessor that differ."""
        count = whole(sparse, "count", len(values))
        kind = np.dtype(_TYPES[sparse["indices"]["componentType"]])
        index = self._elements(sparse["indices"], count, 1, kind)[:, 0].astype(np.int64)
        if index.min(initial=0) < 0 or index.max(initial=-1) >= len(values):
            raise DataError("has a sparse accessor beyond its end; export it again")
        values[index] = self._elements(sparse["values"], count, values.shape[1], values.dtype)
        return values


def whole(values: dict[str, Any], key: str, most: int, default: int | None = None) -> int:
    """A whole number from 0 to `most` in a JSON object."""
    value: Any = values.get(key, default)
    if type(value) not in (int, float) or value != value // 1 or not 0 <= value <= most:
        raise DataError(f"has {key} {str(value)[:20]}; wanted 0 to {most:,}: export it again")
    return int(value)


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the first buffer of a GLB file."""
    if len(content) < 20 or content[:4] != b"glTF":
        raise DataError("is not a GLB file; export it again")
    version, size, length, kind = struct.unpack_from("<4xIII4s", content)
    if version != 2:
        raise DataError(f"is a GLB file of version {version}, wanted 2; export it again")
    if size > len(content) or kind != b"JSON" or 20 + length > size:
        raise DataError("is cut short or damaged; copy or export it again")
    if length > MAX_TEXT:
        raise DataError(f"has {length:,} bytes of JSON; wanted at most {MAX_TEXT:,}")
    try:
        values = json.loads(content[20 : 20 + length])
    except (ValueError, RecursionError) as error:
        raise DataError(f"has damaged JSON ({error}); copy or export it again") from None
    if not isinstance(values, dict):
        raise DataError("has JSON that is no object; export it again")
    at, binary = 20 + length, b""
    while at + 8 <= size:
        length, kind = struct.unpack_from("<I4s", content, at)
        if kind == b"BIN\0":
            binary = content[at + 8 : min(size, at + 8 + length)]
            break
        at += 8 + length
    return values, binary
