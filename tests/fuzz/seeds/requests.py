"""Requests to the service: the head in head.txt, and the body beside it."""

import base64
import io

import numpy as np
from PIL import Image

from tests.fuzz.seeds.common import JPG, PHOTO, Files, as_json, saved
from unpool.formats.label_studio import labeling_config

_DATA = base64.b64encode(JPG).decode()


def requests() -> list[Files]:
    """A request for each route, with options of every kind."""
    png = {"body.png": saved(Image.fromarray(PHOTO), "PNG")}
    tif = {"body.tif": saved(Image.fromarray(PHOTO.astype(np.int32)[..., 0]), "TIFF")}
    task = {"id": 1, "data": {"image": f"data:image/jpeg;base64,{_DATA}"}}
    config = labeling_config(["background", "cat", "dog"])
    labels = {"tasks": [task, task], "label_config": config, "project": "7.1"}
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [_DATA]}
    tensors = {"inputs": [tensor], "parameters": {"mode": "whole", "binary_data_output": True}}
    parameters = {"threshold": 0.2, "subtask": "semantic"}
    form, kind = _form({"format": "coco", "mode": "tiles", "tile": "32"}, JPG)
    return [
        _request("/v1/segment?mode=whole&presence-threshold=0.3", png),
        _request("/v1/segment?mode=instance&proposals=3&method=grid&format=json", png),
        _request("/v1/segment", {"body.form": form}, kind),
        _request("/v1/restore?psf=motion:5,30&method=rl&steps=3&gamma=srgb", png),
        _request("/v1/restore?psf=gaussian:1&method=wiener&noise=0.01&float", tif),
        _request("/v1/project?layer=trunk.stages.0&unit=1&place=2,3&rule=guided", png),
        _request("/v1/generate?style=0=1,3=-1&azimuth=45&change=zoom=0.1&format=json", {}),
        _request("/label-studio/predict", {"body.json": as_json(labels)}),
        _request("/label-studio/setup", {"body.json": as_json({"schema": config})}),
        _request(
            "/models/tiny",
            {"body.json": as_json({"inputs": _DATA, "parameters": parameters})},
            "application/json",
        ),
        _request("/v2/models/tiny/infer", {"body.json": as_json(tensors)}),
        _request("/metrics", {}, method="GET"),
        *_studio(png),
    ]


def _studio(png: Files) -> list[Files]:
    """Requests of its pages, for a sample image."""
    from unpool import __version__
    from unpool.cards import weights_digest

    chairs = f"/api/chairs/{__version__}-{weights_digest('chairs')[:16]}"
    options = "mode=instance&proposals=2&method=grid&aggregate=mean"
    return [
        _request("/api/images?name=cat.png", png),
        _request("/api/images/coffee/view.jpg", {}, method="GET"),
        _request(f"/api/images/coffee/segment?{options}", {}),
        _request("/api/images/coffee/restore?psf=gaussian:1&method=wiener&luma=", {}),
        _request("/api/images/coffee/blur?psf=motion:13,30&noise=0.01", {}),
        _request("/api/psf.png?psf=moffat:3,2", {}, method="GET"),
        _request(f"{chairs}/view.png?style=0=1,3=-1&elevation=30", {}, method="GET"),
        _request(f"{chairs}/film.gif?from=0&to=1=2&frames=4&fps=9", {}, method="GET"),
        _request(f"{chairs}/units.webp?layer=shared.fc4&first=2&count=3", {}, method="GET"),
        _request("/static/js/main.js", {}, method="GET"),
        _request("/api/jobs/abc", {}, method="DELETE"),
    ]


def _request(path: str, body: Files, kind: str = "image/png", method: str = "POST") -> Files:
    head = f"{method} {path} HTTP/1.1\nHost: localhost:80\nContent-Type: {kind}\nAccept: */*\n"
    return {"head.txt": head.encode(), **body}


def _form(fields: dict[str, str], data: bytes) -> tuple[bytes, str]:
    file = io.BytesIO()
    for name, value in fields.items():
        text = f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        file.write(text.encode())
    file.write(b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n')
    file.write(data + b"\r\n--xx--\r\n")
    return file.getvalue(), "multipart/form-data; boundary=xx"
