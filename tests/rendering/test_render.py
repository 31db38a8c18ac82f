"""Images of meshes whose outlines are known."""

import sys

import cv2
import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.rendering.render import DISTANCE, frame_views, render_views
from unpool.rendering.triangles import Mesh, rotate_mesh

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("embreex")

VIEWS = [(0.0, 20.0), (11.6, 20.0), (45.0, 30.0), (200.0, 30.0), (300.0, 0.0)]
RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)


def body(corners, colors=(0.5, 0.5, 0.5), places=None, textures=()):
    corners = np.asarray(corners, np.float64)
    edges = corners[:, 1:] - corners[:, :1]
    normals = np.cross(edges[:, 0], edges[:, 1])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    shape = (len(corners), 3, 3)
    return Mesh(
        corners,
        np.broadcast_to(normals[:, None], shape).astype(np.float32),
        np.broadcast_to(np.asarray(colors, np.float32), shape).copy(),
        np.zeros((*shape[:2], 2), np.float32) if places is None else np.float32(places),
        np.full(len(corners), 0 if textures else -1),
        tuple(textures),
    )


def join(*meshes):
    return Mesh(*(np.concatenate([mesh[i] for mesh in meshes]) for i in range(5)))


def box(size=(1, 1, 1), middle=(0, 0, 0), color=(0.5, 0.5, 0.5)):
    made = trimesh.creation.box(size)
    return body(made.triangles + middle, color)


def project(points, frame, azimuth, elevation):
    """Pixels of points in an image of side 1, by OpenCV's camera, which looks along +z, y down."""
    a, e = np.deg2rad([azimuth, elevation])
    away = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.cross([0, 1, 0], away)
    right /= np.linalg.norm(right)
    pose = np.stack([right, np.cross(right, away), -away])
    focal = 1 / (2 * frame.half)
    camera = np.array([[focal, 0, 0.5], [0, focal, 0.5 + frame.height * focal], [0, 0, 1]])
    scaled = (np.asarray(points, np.float64) - frame.center) / frame.radius
    shift = np.array([0, 0, DISTANCE])
    return cv2.projectPoints(scaled, cv2.Rodrigues(pose)[0], shift, camera, None)[0][:, 0]


def test_a_cube_covers_what_its_corners_enclose():
    mesh = box()
    frame = frame_views(mesh, VIEWS)
    corners = np.unique(mesh.corners.reshape(-1, 3), axis=0)
    for view, image in zip(VIEWS, render_views(mesh, VIEWS, 64), strict=True):
        outline = cv2.convexHull(project(corners, frame, *view).astype(np.float32))
        assert (image[..., 3] / 255).mean() == pytest.approx(cv2.contourArea(outline), rel=0.01)


def test_a_sphere_covers_the_circle_of_its_tangents():
    ball = body(trimesh.creation.icosphere(subdivisions=4, radius=3.0).triangles + 7)
    frame = frame_views(ball, VIEWS)
    radius = 1 / np.sqrt(3)  # in radii of the sphere around its box
    tangent = radius / np.sqrt(DISTANCE**2 - radius**2)
    fraction = np.pi * tangent**2 / (2 * frame.half) ** 2
    for image in render_views(ball, VIEWS, 64):
        assert (image[..., 3] / 255).mean() == pytest.approx(fraction, rel=0.01)


def test_points_are_projected_as_by_opencv():
    places = [(1.0, 0.2, 0.1), (-0.4, 1.5, 0.3), (0.2, -0.6, 0.9)]
    colors = [RED, GREEN, BLUE]
    mesh = join(*(box((0.1,) * 3, at, color) for at, color in zip(places, colors, strict=True)))
    frame = frame_views(mesh, VIEWS)
    for view, image in zip(VIEWS, render_views(mesh, VIEWS, 64), strict=True):
        expected = project(places, frame, *view) * 64 - 0.5
        for channel in range(3):
            weight = image[..., channel] * (image[..., 3] / 255.0)
            weight *= image[..., channel] > 1.5 * image[..., :3].mean(axis=-1)
            rows, columns = np.indices(weight.shape)
            found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
            assert np.abs(found - expected[channel]).max() < 0.6


def hue(color):
    """Which of the four sides a pixel shows."""
    return tuple(int(value > color[:3].max() / 2) for value in color[:3])


def test_the_camera_moves_counterclockwise():
    cube = box()
    sides = {(0, 0, 1): RED, (1, 0, 0): GREEN, (0, 0, -1): BLUE, (-1, 0, 0): YELLOW}
    colors = np.ones_like(cube.colors)
    for face, normal in enumerate(cube.normals[:, 0].round().astype(int)):
        colors[face] = sides.get(tuple(normal), (1, 1, 1))
    mesh = cube._replace(colors=colors)
    quarters = [(90.0 * i, 0.0) for i in range(4)]
    seen = [hue(image[16, 16]) for image in render_views(mesh, quarters, 32)]
    assert seen == [RED, GREEN, BLUE, YELLOW]
    [corner] = render_views(mesh, [(45.0, 30.0)], 32)
    assert hue(corner[20, 10]) == RED
    assert hue(corner[20, 22]) == GREEN
    top = corner[np.flatnonzero(corner[:, 16, 3])[0] + 3, 16]
    assert hue(top) == (1, 1, 1)


def test_the_object_turns_in_place_between_margins():
    mesh = join(box((1, 2, 0.5)), box((0.3, 0.3, 2), (0.2, -0.8, 0.3)))
    views = [(float(a), 20.0) for a in range(0, 360, 30)]
    covered = np.max([image[..., 3] for image in render_views(mesh, views, 64)], axis=0) > 0
    rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
    assert min(rows[0], columns[0], 63 - rows[-1], 63 - columns[-1]) in (1, 2)
    assert abs(rows[0] - (63 - rows[-1])) <= 1  # in the middle
    assert abs(columns[0] - (63 - columns[-1])) <= 1


def test_color_is_straight_and_zero_without_alpha():
    [image] = render_views(body(QUAD, (0.2, 0.6, 0.4)), [(40.0, 20.0)], 32)
    alpha = image[..., 3]
    assert alpha[(alpha > 0) & (alpha < 255)].size > 20
    assert np.ptp(image[alpha > 0][:, :3], axis=0).max() <= 1
    assert not image[alpha == 0].any()


def test_the_same_mesh_gives_the_same_bytes():
    mesh = body(trimesh.creation.icosphere(subdivisions=2).triangles, GREEN)
    first, again = (np.stack(list(render_views(mesh, VIEWS, 48))) for _ in range(2))
    assert first.shape == (5, 48, 48, 4)
    assert first.tobytes() == again.tobytes()


QUAD = [[(-1, -1, 0), (1, -1, 0), (1, 1, 0)], [(-1, -1, 0), (1, 1, 0), (-1, 1, 0)]]
UNIT = [[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]]


def test_a_texture_lies_upright_and_wraps_around():
    texture = np.repeat(np.repeat(np.uint8([[RED, GREEN], [BLUE, YELLOW]]) * 255, 8, 0), 8, 1)
    [once] = render_views(body(QUAD, (1, 1, 1), UNIT, [texture]), [(0.0, 0.0)], 64)
    assert [hue(once[y, x]) for y in (16, 48) for x in (16, 48)] == [RED, GREEN, BLUE, YELLOW]
    twice = body(QUAD, (1, 1, 1), np.float32(UNIT) * 2 - 3, [texture])
    [image] = render_views(twice, [(0.0, 0.0)], 64)
    quarters = [hue(image[y, x]) for y in (10, 25, 40, 54) for x in (10, 25, 40, 54)]
    assert quarters == [RED, GREEN, RED, GREEN, BLUE, YELLOW, BLUE, YELLOW] * 2


def test_a_texture_finer_than_the_pixels_is_averaged():
    fine = np.repeat(np.indices((256, 256)).sum(axis=0)[..., None] % 2, 3, -1).astype(np.uint8)
    [image] = render_views(body(QUAD, (1, 1, 1), UNIT, [fine * 255]), [(0.0, 0.0)], 16)
    inner = image[3:13, 3:13, :3].astype(int)
    [plain] = render_views(body(QUAD, (0.5, 0.5, 0.5)), [(0.0, 0.0)], 16)
    assert np.abs(inner - plain[3:13, 3:13, :3]).max() <= 2


def test_both_sides_of_a_face_are_lit():
    mesh = body(QUAD, (0.8, 0.8, 0.8))
    front, back = render_views(mesh, [(0.0, 0.0), (180.0, 0.0)], 16)
    assert np.array_equal(front, back)
    assert front[8, 8, 0] > 128


def test_rotating_the_mesh_is_moving_the_camera():
    mesh = join(box((1, 2, 0.5), color=RED), box((0.3, 0.3, 2), (0.2, -0.8, 0), GREEN))
    rotation = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter, from +z to +x
    around = list(render_views(mesh, [(0.0, 20.0), (90.0, 20.0)], 32))
    turned = list(render_views(rotate_mesh(mesh, rotation), [(90.0, 20.0), (180.0, 20.0)], 32))
    assert np.abs(np.array(around).astype(int) - turned).max() <= 1


def test_missing_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    with pytest.raises(OptionError, match=r'install it with pip install "unpool\[render\]"'):
        next(render_views(box(), VIEWS, 8))
