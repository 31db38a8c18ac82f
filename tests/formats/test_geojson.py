"""GeoJSON: the pixels again, valid polygons, and the numbers of the map."""

import itertools
import json

import numpy as np
import pytest

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.data.shapes import fill_polygon
from unpool.formats.geojson import to_geojson
from unpool.formats.objects import find_objects
from unpool.vision.georeference import PIXELS, Georeference

MAPS = {
    "pixels": PIXELS,
    "north up": Georeference((0.5, 0, 440720, 0, -0.5, 3751320), "EPSG:32633", 32633),
    "south up": Georeference((2, 0, 10, 0, 2, -7), "map units"),
    "turned": Georeference((0.6, 0.8, 100, 0.8, -0.6, 200), "map units"),
}


def polygons(feature):
    geometry = feature["geometry"]
    several = geometry["type"] == "MultiPolygon"
    return geometry["coordinates"] if several else [geometry["coordinates"]]


def area(ring):
    """Positive if the ring runs counterclockwise with y upwards."""
    (x, y), (next_x, next_y) = np.array(ring[:-1]).T, np.array(ring[1:]).T
    return (x * next_y - next_x * y).sum() / 2


def draw(found, size, transform):
    """Back to pixels by the inverse of the map's transform."""
    a, b, c, d, e, f = transform
    inverse = np.linalg.inv([[a, b, c], [d, e, f], [0, 0, 1]])
    labels = np.zeros(size, np.uint8)
    for feature in found["features"]:
        mask = np.zeros(size, bool)
        for rings in polygons(feature):
            for ring in rings:
                points = np.array(ring, float) @ inverse[:2, :2].T + inverse[:2, 2]
                mask ^= fill_polygon(points.round(6), *size)
        assert feature["properties"]["pixels"] == mask.sum()
        labels[mask] = feature["properties"]["class_id"]
        assert feature["properties"]["class"] == CLASSES[feature["properties"]["class_id"]]
    return labels


@pytest.mark.parametrize("place", MAPS.values(), ids=MAPS.keys())
@pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())
def test_each_pixel_is_kept(labels, place):
    found = json.loads(json.dumps(to_geojson(find_objects(labels, CLASSES), place)))
    assert (draw(found, labels.shape, place.transform) == known(labels)).all()
    for feature in found["features"]:
        for outer, *holes in polygons(feature):
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert ring[0] == ring[-1]
                assert len({tuple(point) for point in ring}) == len(ring) - 1, "no point twice"


@pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())
def test_polygons_are_valid(labels):
    """As in Simple Features: no edge twice, holes within the outer ring, no cut through."""
    for feature in to_geojson(find_objects(labels, CLASSES))["features"]:
        edges = []
        for rings in polygons(feature):
            for ring in rings:
                for (x0, y0), (x1, y1) in itertools.pairwise(ring):
                    count = max(abs(x1 - x0), abs(y1 - y0))
                    steps = [(x0 + (x1 - x0) * i // count, y0 + (y1 - y0) * i // count)
                             for i in range(count + 1)]  # fmt: skip
                    edges += [frozenset(pair) for pair in itertools.pairwise(steps)]
            inside = fill_polygon(np.array(rings[0], float) * [1, -1], *labels.shape)
            taken = np.zeros(labels.shape, int)
            for hole in rings[1:]:
                mask = fill_polygon(np.array(hole, float) * [1, -1], *labels.shape)
                assert (mask <= inside).all()
                taken += mask
            assert taken.max(initial=0) <= 1
        assert len(set(edges)) == len(edges)


def test_an_object_of_diagonal_parts_has_several_polygons():
    [feature] = to_geojson(find_objects(SCENES["diagonal"], CLASSES))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 9


def test_the_system_is_said():
    objects = find_objects(np.array([[1]]), CLASSES, np.ones((4, 1, 1)))
    found = to_geojson(objects)
    assert found["type"] == "FeatureCollection"
    assert "crs" not in found
    assert found["coordinate_system"].startswith("pixels")
    assert found["features"][0]["properties"]["score"] == 1.0
    found = to_geojson(objects, MAPS["north up"])
    assert found["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    assert found["coordinate_system"] == "EPSG:32633"
    assert found["features"][0]["geometry"]["coordinates"] == [
        [[440720, 3751320], [440720, 3751319.5], [440720.5, 3751319.5], [440720.5, 3751320],
         [440720, 3751320]]
    ]  # fmt: skip
    degrees = to_geojson(objects, Georeference((1, 0, 0, 0, -1, 0), "EPSG:4326", 4326))
    assert degrees["crs"]["properties"]["name"] == "urn:ogc:def:crs:OGC:1.3:CRS84"
