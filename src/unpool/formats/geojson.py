"""GeoJSON: objects as polygons in the coordinates of a map, for QGIS and other programs of maps.

Rings are closed; outer rings run counterclockwise and holes clockwise. An object whose parts touch
at corners of pixels only is a MultiPolygon, so that all polygons are valid. RFC 7946 wants
longitude and latitude on WGS 84; numbers here are those of the image's own system, which
`coordinate_system` names, and `crs`, as in GeoJSON of 2008, where its EPSG code is known.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from unpool.formats.objects import Objects, find_objects
from unpool.formats.outlines import Ring, simplify, trace
from unpool.vision.georeference import PIXELS, Georeference
from unpool.vision.images import VOID


def to_geojson(
    objects: Objects, georeference: Georeference = PIXELS, *, tolerance: float = 0.0
) -> dict[str, Any]:
    """The contents of the GeoJSON file of an image, a FeatureCollection.

    Args:
        objects: of the image, see `find_objects`.
        georeference: of the image, see `read_georeference`; by default, pixels with y negated.
        tolerance: by how many pixels outlines may be simplified, see `simplify`.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> found = to_geojson(find_objects(np.array([[0, 1]]), ["background", "cat"]))
    >>> found["features"][0]["geometry"]["coordinates"]
    [[[1, 0], [1, -1], [2, -1], [2, 0], [1, 0]]]
    """
    polygons: defaultdict[int, list[list[list[list[float]]]]] = defaultdict(list)
    labels = np.append(VOID, objects.labels).astype(np.uint8)[objects.numbers]
    parts = find_objects(labels, objects.classes, connectivity=4)
    for rings in trace(parts.numbers, 4):
        x, y = rings[0][0].tolist()
        # the first point is the upper left corner of a pixel of the object
        polygons[int(objects.numbers[y, x])].append(
            [_placed(simplify(ring, tolerance), georeference) for ring in rings]
        )
    features = []
    for i, name in enumerate(objects.names()):
        shape = polygons[i + 1]
        properties: dict[str, Any] = {
            "class": name,
            "class_id": int(objects.labels[i]),
            "pixels": int(objects.areas[i]),
        }
        properties |= objects.score(i)
        geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": shape}
        if len(shape) == 1:
            geometry = {"type": "Polygon", "coordinates": shape[0]}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    found: dict[str, Any] = {"type": "FeatureCollection"}
    if georeference.epsg is not None:
        found["crs"] = {"type": "name", "properties": {"name": _crs(georeference.epsg)}}
    return {**found, "coordinate_system": georeference.system, "features": features}


def _placed(ring: Ring, georeference: Georeference) -> list[list[float]]:
    """A closed ring on the map, outer ones counterclockwise with y upwards."""
    a, b, c, d, e, f = georeference.transform
    x, y = (ring if a * e > b * d else ring[np.r_[0, len(ring) - 1 : 0 : -1]]).T
    points = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
    found: list[list[float]] = points.tolist()
    return [*found, found[0]]


def _crs(epsg: int) -> str:
    """The name of a coordinate system, with longitude before latitude for WGS 84."""
    return "urn:ogc:def:crs:OGC:1.3:CRS84" if epsg == 4326 else f"urn:ogc:def:crs:EPSG::{epsg}"
