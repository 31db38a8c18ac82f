"""Run the service on a port, until a signal ends it."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from unpool.errors import OptionError
from unpool.limits import KIB, MAX_CONNECTIONS

if TYPE_CHECKING:
    from unpool.serve.app import App

GRACE = 30
"""Seconds in which requests are finished after a signal."""


def open_port(host: str, port: int) -> socket.socket:
    """Listen on a port; 0 is any that is free.

    Raises:
        OptionError: the port is in use, or the host is not of this machine.

    >>> with open_port("127.0.0.1", 0) as listening:
    ...     listening.getsockname()[1] > 0
    True
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"got host={host} and port={port}, where the service cannot listen ({reason}); choose "
            "another port, or port=0 for any that is free"
        ) from None


def run(listening: socket.socket, make: Callable[[Callable[[], None]], "App"]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; those that have begun are finished first.

    Args:
        listening: see `open_port`.
        make: gets a function that ends the server, and makes the application.

    Raises:
        UnpoolError: the weights cannot be loaded.
    """
    server: uvicorn.Server

    def end() -> None:
        server.should_exit = True

    app = make(end)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=GRACE,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=16 * KIB,
        )
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has stopped
        server.run(sockets=[listening])
    if error := app.service.engine.error:
        raise error
