"""Read 3-D models from files."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unpool.errors import DataError, one_line
from unpool.files import read_bytes
from unpool.limits import MAX_MODEL
from unpool.rendering.gltf import read_glb
from unpool.rendering.obj import read_obj
from unpool.rendering.ply import read_ply
from unpool.rendering.triangles import Mesh, finish

_READERS: dict[str, Callable[[Path, bytes], Mesh]] = {
    ".obj": read_obj,
    ".glb": read_glb,
    ".ply": read_ply,
}
ENDINGS = tuple(_READERS)
"""Suffixes of model files."""


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a model from an OBJ, GLB or PLY file, with its textures and colors.

    A texture replaces the material's color in OBJ, and is multiplied with it in GLB. The color of
    the material is used alone where there are no texture coordinates, and where the texture is
    missing, which is then listed in `missing`. Concave faces are cut into triangles that cover
    them. Faces without area, and of invisible materials, are dropped; edges of more than 45 degrees
    are sharp, others smooth. What is rendered in another way than the file says is in `notes`.

    Args:
        path: the file; materials and textures must lie in its folder or below it.

    Raises:
        DataError: the file is missing, damaged, too large or empty, has points that are not finite,
            or names missing material files, or a missing texture for a material without a color.
            No other error is raised, whatever the file contains.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"got {path.name}; wanted a model: a file ending in {' '.join(ENDINGS)}")
    if not os.path.exists(path):
        raise DataError(f"{path.name} is missing; put the file into its folder")
    content = read_bytes(path, DataError, MAX_MODEL)
    try:
        with np.errstate(all="ignore"):  # `finish` checks what is not finite
            mesh = finish(_READERS[path.suffix.lower()](path, content))
    except DataError as error:
        raise DataError(f"{path.name} {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        # what the readers do not check by name: values of another type, or far too large
        message = f"{path.name} cannot be read as a model: it is damaged; export it again"
        raise DataError(message) from None
    missing, notes = (tuple(map(one_line, texts)) for texts in (mesh.missing, mesh.notes))
    return mesh._replace(missing=missing, notes=notes)
