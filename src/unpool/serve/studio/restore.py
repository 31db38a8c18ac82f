"""The API of the page Restore: an image of the store restored, its PSF, and a blurred sample."""

import asyncio
import io
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import ImageError
from unpool.limits import MAX_SERVED_PSF
from unpool.serve import options
from unpool.serve.applications import JPEG, PNG, TIFF, Models, read, restore_stack
from unpool.serve.intake import query_options, require_samples
from unpool.serve.studio.studio import Image, Studio, file_response

if TYPE_CHECKING:
    from unpool.serve.engine import Job
    from unpool.vision.images import Pixels

RESTORE = tuple(option for option in options.RESTORE if option.name != "format")
BLUR = (options.Option("psf", options.text), options.Option("noise", options.number(0, 0.2)))

SUFFIXES = {PNG: ".png", JPEG: ".jpg", TIFF: ".tif"}

_SHOWN = 256  # long side of the image of a PSF


def routes(studio: Studio) -> list[Route]:
    """The routes of the page."""
    page = _Page(studio)
    return [
        Route("/api/psf.png", page.psf),
        Route("/api/images/{id}/blur", page.blur, methods=["POST"]),
        Route("/api/images/{id}/restore", page.restore, methods=["POST"]),
    ]


class _Page:
    """Answers requests."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def psf(self, request: Request) -> Response:
        """`/api/psf.png`: a PSF by formula as an image."""
        text = options.parse(query_options(request), BLUR[:1]).get("psf", "")
        return file_response(await self.studio.run(request, lambda job: psf_image(text)), PNG)

    async def blur(self, request: Request) -> Response:
        """`POST /api/images/ID/blur`: a blurred copy of an image, which is kept."""
        image, given = self.studio.image(request), options.parse(query_options(request), BLUR)
        data = await self.studio.run(request, lambda job: blurred_image(image.data, **given))
        name = "-".join([*PurePath(image.name).stem.split(), "blurred.png"])
        blurred = Image.from_file(data, name)
        return JSONResponse(blurred.facts(self.studio.store.add(blurred, len(data))), 201)

    async def restore(self, request: Request) -> Response:
        """`POST /api/images/ID/restore`: a job that restores it."""
        studio, image = self.studio, self.studio.image(request)
        given = options.parse(query_options(request), RESTORE)
        await asyncio.to_thread(require_samples, image.data)

        def work(job: "Job") -> dict[str, Any]:
            start = time.perf_counter()
            found = restore_image(studio.models, image.data, dict(given), job)
            return {
                **found.facts,
                "seconds": round(time.perf_counter() - start, 3),
                "suffix": SUFFIXES[found.media_type],
                "file": studio.keep(found.file, found.media_type),
                "before": studio.keep(found.before),
                "after": studio.keep(found.after),
            }

        return JSONResponse({"job": await studio.jobs.start(work)}, 202)


class Restoration(NamedTuple):
    """A restored image as the page shows and saves it."""

    file: bytes  #: what `/v1/restore` answers and `unpool restore` writes
    media_type: str
    before: bytes  #: the first page as an 8-bit PNG, in the brightness of `after`
    after: bytes
    facts: dict[str, Any]


def restore_image(models: Models, data: bytes, given: dict[str, Any], job: "Job") -> Restoration:
    """Restore an image, or the pages of a TIFF, of which the first is shown."""
    from unpool.restore.result import shown

    answer, result = restore_stack(models, data, job, **given)
    before, after = (_png(shown(image, result.before)) for image in (result.before, result.image))
    return Restoration(answer.content, answer.media_type, before, after, answer.facts)


def psf_image(text: str) -> bytes:
    """A PSF by formula as a PNG, in a square with zeros around it: dark for 0, bright for the peak.

    >>> psf_image("disk:2")[1:4]
    b'PNG'
    """
    import numpy as np

    from unpool.vision.drawing import heat_map
    from unpool.vision.figures import scale_to
    from unpool.vision.psf import parse_psf

    kernel = parse_psf(text, MAX_SERVED_PSF).kernel
    side = max(kernel.shape) + 2
    square = np.pad(kernel, [((side - n) // 2,) * 2 for n in kernel.shape])
    return _png(scale_to(heat_map(square), _SHOWN))


def blurred_image(data: bytes, psf: str = "motion:13,30", noise: float = 0.005) -> bytes:
    """An image blurred by a PSF, as a PNG; the borders that lie outside are cut off.

    Args:
        data: of an image file.
        psf: by formula.
        noise: standard deviation of the added noise, as a fraction of the largest value.
    """
    import numpy as np
    import torch

    from unpool.ops.blur import blur
    from unpool.vision.psf import parse_psf

    kernel = parse_psf(psf, MAX_SERVED_PSF).kernel
    image = read(data)
    if min(image.shape[:2]) < 2 * max(kernel.shape):
        height, width = image.shape[:2]
        raise ImageError(f"got {width} x {height} pixels for {psf}; blur a larger image")
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    y = blur(x, torch.from_numpy(kernel), "valid")[0].permute(1, 2, 0).numpy()
    y = y + noise * np.random.default_rng(0).standard_normal(y.shape, np.float32)
    return _png(np.rint(y.clip(0, 1) * 255).astype(np.uint8))


def _png(image: "Pixels") -> bytes:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(image).save(file, "PNG", compress_level=1)  # a fifth of the default's time
    return file.getvalue()
