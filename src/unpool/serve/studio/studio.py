"""What the pages of the studio share: settings, images and results, jobs."""

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from unpool.limits import KIB
from unpool.serve.intake import require_size
from unpool.serve.refusals import Refusal
from unpool.serve.studio.jobs import Jobs
from unpool.serve.studio.store import Store
from unpool.vision.images import image_size

if TYPE_CHECKING:
    from unpool.serve.engine import Job
    from unpool.serve.service import Service

T = TypeVar("T")

STATIC = ("unpool.serve.studio", "static")
"""The package and the folder of the static files."""

SAMPLES = {
    "chelsea": "A cat",
    "astronaut": "An astronaut",
    "motorcycle": "A motorcycle",
    "camera": "A man with a camera",
}
"""The sample images by id; photos that scikit-image ships, all CC0 or in the public domain."""


class Settings(NamedTuple):
    """What `unpool studio` was started with.

    The model is what the keywords of `unpool.visualize.preprocessing.load_model` name.
    """

    model: Mapping[str, Any] = {}  #: to look inside; empty for the network that segments
    results: Path | None = None  #: a folder of results to show
    gallery: Path | None = None  #: what `unpool visualize top` wrote for the model


class Image(NamedTuple):
    """An image, as it came."""

    data: bytes
    width: int  #: upright, in pixels
    height: int
    name: str  #: for people

    @classmethod
    def from_file(cls, data: bytes, name: str = "") -> "Image":
        """Check an image by its header.

        Raises:
            Refusal: 413 for too many pixels.
            ImageError: this is not an image.
        """
        require_size(data)
        height, width = image_size(data)
        return cls(data, width, height, name)

    def facts(self, name: str) -> dict[str, Any]:
        """What a page knows about the image of an id."""
        return {"id": name, "width": self.width, "height": self.height, "name": self.name}


class File(NamedTuple):
    """A file that a page shows or downloads."""

    content: bytes
    media_type: str


class Studio:
    """What the routes of all pages share.

    Args:
        service: whose networks, engine and limits these are.
        settings: see `Settings`.
        explain: the message of an error for users.
    """

    def __init__(
        self, service: "Service", settings: Settings, explain: Callable[[Exception], str]
    ) -> None:
        self.service, self.settings, self.models = service, settings, service.models
        self.store = Store(fixed=self.samples)
        self.jobs = Jobs(service.engine, explain)

    @cached_property
    def samples(self) -> dict[str, Image]:
        """The sample images by id."""
        folder = resources.files(STATIC[0]) / STATIC[1] / "samples"
        return {
            name: Image.from_file((folder / f"{name}.jpg").read_bytes(), title)
            for name, title in SAMPLES.items()
        }

    def image(self, request: Request) -> Image:
        """The image whose id is in the path.

        Raises:
            Refusal: 404 if it is not kept any more.
        """
        return self.store.get(request.path_params["id"], Image)

    async def run(self, request: Request, work: Callable[["Job"], T]) -> T:
        """Compute something quick for a request; for the rest there are `jobs`."""
        return await self.service.run(request, work)

    def keep(self, content: bytes, media_type: str = "image/png") -> str:
        """Keep a file; returns the path at which a page gets it."""
        name = self.store.add(File(content, media_type), len(content) + KIB)
        return f"/api/files/{name}"


def file_response(content: bytes, media_type: str, name: str = "", **headers: str) -> Response:
    """A file of a result, which never changes; with a name it is one to download.

    >>> file_response(b"", "image/png", "cat.png").headers["content-disposition"]
    'attachment; filename="cat.png"'
    """
    more = {"cache-control": "private, max-age=1800, immutable", **headers}
    if name:
        more["content-disposition"] = f'attachment; filename="{name}"'
    return Response(content, 200, more, media_type)


def require_known_id(known: bool) -> None:
    """Refuse what does not exist with 404."""
    if not known:
        raise Refusal(404, "got a file that is not one of this result; see docs/studio.md")
