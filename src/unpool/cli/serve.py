"""`unpool serve` and `unpool studio`: the networks as an HTTP service, and pages in a browser."""

import os
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import options
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.serve.studio.studio import Settings

_OPTIONS = (
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        help="Port to listen on; 0 for any that is free.",
    ),
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Address to listen on; other ones than loopback need --key.",
    ),
    options.WEIGHTS,
    click.option(
        "--generator",
        default="chairs",
        show_default=True,
        metavar="NAME|FOLDER",
        help="Weights of the network that generates images.",
    ),
    click.option(
        "--key",
        envvar="UNPOOL_KEY",
        metavar="TEXT",
        help="What requests must have in the header 'Authorization: Bearer TEXT'; may also be in "
        "the environment variable UNPOOL_KEY, which other users of the machine do not see.",
    ),
    click.option("--no-key", is_flag=True, help="Listen on any address without a key."),
    click.option(
        "--allow-host",
        "allowed",
        multiple=True,
        metavar="NAME",
        help="Another name by which the service is called, such as that of its proxy; repeatable.  "
        "[default: loopback and --host]",
    ),
    click.option(
        "--waiting",
        type=click.IntRange(min=0),
        default=8,
        show_default=True,
        help="Requests that may wait; others get 429.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Time of a request, waiting included; then 504.",
    ),
    click.option(
        "--label-studio",
        "origin",
        metavar="ADDRESS",
        help="Address of the Label Studio whose uploads are read, such as http://localhost:8080; "
        "its token is in the environment variable LABEL_STUDIO_API_KEY.",
    ),
    click.option(
        "--images",
        "folder",
        type=click.Path(exists=True, file_okay=False),
        metavar="FOLDER",
        help="Folder of the local storage of Label Studio, whose images are read.",
    ),
    options.PRECISION,
    options.EXACT,
    options.DEVICE,
    options.QUIET,
)
"""Of both commands."""


def _service(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of the service to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_service
def serve(**given: Any) -> int:
    """Segment, restore, project and generate images for HTTP clients.

    POST an image to /v1/segment, /v1/restore or /v1/project, as the body or as the field "file" of
    a form; options are in the query or in the form, with the names of `unpool segment`, `unpool
    restore` and `unpool visualize project`. POST to /v1/generate has the options of `unpool
    generate view`. The answers are the files that these commands write.

    Label Studio takes http://HOST:PORT/label-studio as a backend, huggingface_hub
    http://HOST:PORT/models/NAME as a model, and clients of Open Inference v2 http://HOST:PORT/v2.

    /livez, /readyz and /metrics are for operators. Requests beyond the limits are refused with
    their codes, see docs/serve.md. SIGTERM or Ctrl-C finish the requests that have begun.

    Needs unpool[serve].

    \b
    Example: unpool serve --port 8000
             curl --data-binary @cat.jpg localhost:8000/v1/segment -o mask.png
    """
    return _run(given)


@click.command()
@click.option("--no-browser", is_flag=True, help="Open no browser.")
@click.option(
    "--torch-model",
    metavar="PACKAGE.MODULE:FACTORY",
    help="Any PyTorch model to look inside of: a function without arguments that returns it. The "
    "module may be in the current folder; its code is run.",
)
@click.option(
    "--results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Results to show, of `unpool train` or `unpool segment`.",
)
@click.option(
    "--gallery",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="What `unpool visualize top` wrote for the same model: strongest patches beside units.",
)
@_service
def studio(
    no_browser: bool,
    torch_model: str | None,
    results: Path | None,
    gallery: Path | None,
    **given: Any,
) -> int:
    """Segment, look inside, draw and restore in a browser.

    The pages are on top of the service of `unpool serve`, which also answers HTTP clients. They
    need no connection to the internet. Images stay in the memory of this process.

    Needs unpool[serve].

    \b
    Example: unpool studio
             unpool studio --weights runs/mine --results runs/mine
    """
    require_serve()
    from unpool.serve.studio.studio import Settings

    model = {} if torch_model is None else {"torch_model": torch_model}
    return _run(given, Settings(model, results, gallery), browse=not no_browser)


def _run(given: dict[str, Any], studio: "Settings | None" = None, browse: bool = False) -> int:
    """Answer requests until a signal ends it."""
    require_serve()
    from unpool.cards import read_card
    from unpool.serve.app import App, make_app
    from unpool.serve.applications import Models
    from unpool.serve.guard import LOOPBACK
    from unpool.serve.protocols.label_studio import Images
    from unpool.serve.server import open_port, run

    host, key, no_key, quiet = (given.pop(name) for name in ("host", "key", "no_key", "quiet"))
    if host not in LOOPBACK and not key and not no_key:
        raise OptionError(
            f"got host={host} without a key, so that everyone who reaches this machine could use "
            "it; add --key TEXT, or --no-key if something else keeps others out"
        )
    if key and no_key:
        raise OptionError("got --key and --no-key; leave one of them out")
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise OptionError("got a key that no header can hold; wanted printable ASCII characters")
    images = Images(
        given.pop("origin"), os.environ.get("LABEL_STUDIO_API_KEY", ""), given.pop("folder")
    )
    port, waiting, seconds = (given.pop(name) for name in ("port", "waiting", "timeout"))
    hosts = [*LOOPBACK, host, *given.pop("allowed")]
    read_card(given["generator"])
    models = Models(**options.typed(given))

    def make(end: Any) -> App:
        return make_app(
            models,
            hosts=hosts,
            key=key or None,
            waiting=waiting,
            seconds=seconds,
            failed=end,
            images=images,
            studio=studio,
            log=(lambda line: None) if quiet else lambda line: click.echo(line, err=True),
        )

    with open_port(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}"
        if not quiet:
            click.echo(address)
        if browse:
            webbrowser.open(address)  # the port is open; it answers as soon as the loop runs
        run(listening, make)
    return 0


def require_serve() -> None:
    """Raise an `OptionError` without the packages of the service."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"got no {error.name}, which the service needs: pip install 'unpool[serve]'"
        ) from None
