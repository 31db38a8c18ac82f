"""The Open Inference Protocol, version 2, of KServe, Triton and OpenVINO Model Server, over REST.

`POST /v2/models/NAME/infer` has one input, `image`, the bytes of a file: in base64 within the JSON,
or behind it as binary data. It gives one output, `labels`, UINT8 (1, H, W). Parameters of the
request are options of `/v1/segment`.
"""

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import OptionError
from unpool.limits import MAX_JSON_LABELS
from unpool.serve import options
from unpool.serve.applications import segment_image
from unpool.serve.intake import require_size
from unpool.serve.protocols.messages import parse_object
from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    from unpool.serve.engine import Job
    from unpool.serve.service import Service

_OPTIONS = tuple(option for option in options.SEGMENT if option.name != "format")
_LENGTH = "inference-header-content-length"  # of the JSON, where binary data follows


class Inputs(NamedTuple):
    """What a request asks for."""

    image: bytes  #: of a file
    id: str | None  #: of the request
    options: dict[str, Any]  #: of `segment_image`
    binary: bool  #: whether labels are wanted as binary data


def read_inputs(body: bytes, length: str | None = None) -> Inputs:
    """Read a request.

    Args:
        body: JSON, with binary data behind it.
        length: of the JSON in bytes, by the header; None if there is nothing behind it.

    Raises:
        Refusal: 400 for damaged JSON, base64 or binary data, and other inputs.
        OptionError: parameters or outputs that cannot be had.

    >>> tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["aW1hZ2U="]}
    >>> read_inputs(json.dumps({"inputs": [tensor], "parameters": {"mode": "whole"}}).encode())
    Inputs(image=b'image', id=None, options={'mode': 'whole'}, binary=False)
    """
    size = len(body)
    if length is not None:
        size = int(length[:20]) if length.isdecimal() else -1
    if not 0 <= size <= len(body):
        raise Refusal(400, f"got another {_LENGTH} than the body has; wanted the bytes of the JSON")
    given, rest = parse_object(body[:size]), body[size:]
    match given.get("inputs"):
        case [{"name": "image", "datatype": "BYTES", "shape": [1] | [1, 1]} as tensor]:
            image = _decoded(tensor, rest)
        case _:
            raise Refusal(
                400, "got other inputs; wanted one, named image, of datatype BYTES and shape [1]"
            )
    named, wanted = given.get("parameters") or {}, given.get("outputs") or [{"name": "labels"}]
    if not isinstance(named, dict):
        raise Refusal(400, "got parameters that are no JSON object; send one")
    match wanted:
        case [{"name": "labels"} as output]:
            own = output.get("parameters")
        case _:
            raise OptionError("got other outputs; wanted one, named labels, or none")
    binary = own.get("binary_data") if isinstance(own, dict) else None
    asked = {k: [str(v)] for k, v in named.items() if k != "binary_data_output"}
    identity = given.get("id")
    return Inputs(
        image,
        identity if isinstance(identity, str) else None,
        options.parse(asked, _OPTIONS),
        bool(named.get("binary_data_output") if binary is None else binary),
    )


def _decoded(tensor: dict[str, Any], rest: bytes) -> bytes:
    """The only element of an input: 4 bytes with its length and the element, or base64."""
    if rest:
        data = rest[4:]
        if len(rest) < 4 or int.from_bytes(rest[:4], "little") != len(data):
            raise Refusal(400, "got binary data of another length than it says; send one image")
        return data
    match tensor.get("data"):
        case [str() as text] | [[str() as text]]:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:
                pass
    raise Refusal(400, "got no image; send it in base64 as 'data', or as binary data")


def infer(service: "Service", inputs: Inputs, job: "Job") -> Response:
    """The labels of an image."""
    result, _ = segment_image(service.models, inputs.image, job, **inputs.options)
    labels = result.labels[None]
    if not inputs.binary and labels.size > MAX_JSON_LABELS:
        raise OptionError(
            f"got {labels.size:,} pixels; wanted {MAX_JSON_LABELS:,} at most for labels in JSON: "
            "ask for binary_data"
        )
    output: dict[str, Any] = {"name": "labels", "datatype": "UINT8", "shape": [*labels.shape]}
    answer = {
        "model_name": service.models.name,
        "model_version": service.models.digest[:8],
        **({} if inputs.id is None else {"id": inputs.id}),
        "parameters": {"classes": ",".join(result.classes)},
        "outputs": [output],
    }
    if not inputs.binary:
        output["data"] = labels.ravel().tolist()
        return JSONResponse(answer)
    output["parameters"] = {"binary_data_size": labels.size}
    head = json.dumps(answer).encode()
    headers = {_LENGTH: str(len(head))}
    return Response(head + labels.tobytes(), 200, headers, "application/octet-stream")


def routes(service: "Service") -> list[Route]:
    """The routes below `/v2`."""
    name, version = service.models.name, service.models.digest[:8]

    async def server(request: Request) -> Response:
        from unpool import __version__

        about = {"name": "unpool", "version": __version__, "extensions": ["binary_tensor_data"]}
        return JSONResponse(about)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        service.engine.require_ready()
        return JSONResponse({"ready": True})

    async def model(request: Request) -> Response:
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [1]}]
        outputs = [{"name": "labels", "datatype": "UINT8", "shape": [1, -1, -1]}]
        about = {"name": name, "versions": [version], "platform": "unpool"}
        return JSONResponse({**about, "inputs": inputs, "outputs": outputs})

    async def answer(request: Request) -> Response:
        service.engine.require_room()
        async with service.intake.read(request) as body:
            inputs = read_inputs(body, request.headers.get(_LENGTH))
            await asyncio.to_thread(require_size, inputs.image)
            return await service.run(request, lambda job: infer(service, inputs, job))

    return [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route(f"/v2/models/{name}", model),
        Route(f"/v2/models/{name}/ready", ready),
        Route(f"/v2/models/{name}/infer", answer, methods=["POST"]),
    ]
