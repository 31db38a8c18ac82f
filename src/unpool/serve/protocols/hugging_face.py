"""Image segmentation as the inference clients of Hugging Face ask for it.

`InferenceClient(model="http://127.0.0.1:8000/models/objects").image_segmentation("a.png")` of
huggingface_hub posts the bytes of the image or, with parameters, JSON with the image in base64.
"""

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import OptionError
from unpool.serve.applications import segment_image
from unpool.serve.intake import require_size
from unpool.serve.options import number
from unpool.serve.protocols.messages import parse_object, present_classes
from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    from unpool.serve.engine import Job
    from unpool.serve.service import Service


def routes(service: "Service") -> list[Route]:
    """The route of the network, `/models/NAME`."""

    async def segment(request: Request) -> Response:
        service.engine.require_room()
        async with service.intake.read(request) as body:
            data, threshold = read_inputs(body, request.headers.get("content-type", ""))
            await asyncio.to_thread(require_size, data)
            found = await service.run(request, lambda job: segments(service, data, threshold, job))
        return JSONResponse(found)

    return [Route(f"/models/{service.models.name}", segment, methods=["POST"])]


def read_inputs(body: bytes, content_type: str) -> tuple[bytes, float]:
    """The image, and the smallest score of a class that is wanted.

    Raises:
        Refusal: 400 for damaged JSON or base64.
        OptionError: a subtask or a threshold that cannot be had.

    >>> read_inputs(b"image", ""), read_inputs(b'{"inputs": "aW1hZ2U="}', "application/json")
    ((b'image', 0.0), (b'image', 0.0))
    """
    if not content_type.startswith("application/json"):
        return body, 0.0
    given = parse_object(body)
    try:
        data = base64.b64decode(given["inputs"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise Refusal(400, "got no image; send it in base64 as 'inputs'") from None
    parameters = given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refusal(400, "got parameters that are no JSON object; send one")
    if (subtask := parameters.get("subtask")) not in (None, "semantic"):
        raise OptionError(f"got subtask {str(subtask)[:40]!r}; wanted semantic, or none")
    threshold = parameters.get("threshold")
    return data, 0.0 if threshold is None else number(0, 1)("threshold", str(threshold))


def segments(service: "Service", data: bytes, threshold: float, job: "Job") -> list[dict[str, Any]]:
    """An entry for each class that is there, the largest first."""
    from PIL import Image

    from unpool.vision.images import encode_image

    result, _ = segment_image(service.models, data, job)
    return [
        {
            "label": name,
            "score": score,
            "mask": base64.b64encode(
                encode_image(Image.fromarray(mask.astype("uint8") * 255))
            ).decode(),
        }
        for _, name, score, mask in present_classes(result)
        if score >= threshold
    ]
