"""A service with a small network, called in this process or on a port."""

import http.client
import socket
import threading
import time

import pytest
import torch
from starlette.testclient import TestClient

from tests.cli.files import CLASSES
from unpool.models import DeconvNet, save_pretrained
from unpool.serve.app import make_app
from unpool.serve.applications import Models
from unpool.serve.server import open_port, run


@pytest.fixture(scope="session")
def weights(tmp_path_factory, filled) -> str:
    net = filled(DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32), seed=3)
    card = {"classes": CLASSES, "long_side": 64, "license": "none"}
    return str(save_pretrained(net, tmp_path_factory.mktemp("weights") / "tiny", card))


@pytest.fixture(scope="session")
def models(weights) -> Models:
    return Models(weights, precision="fp32")


def wait_until(condition, seconds: float = 30.0) -> None:
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "not in time"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def waits():
    """Wait for a condition, for at most half a minute."""
    return wait_until


@pytest.fixture(scope="session")
def calls(models):
    """A client of a service that is ready."""
    torch.set_num_threads(1)
    app = make_app(models, load=models.segmenter)  # the CRF is compiled by the test that needs it
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        wait_until(lambda: app.service.engine.ready or app.service.engine.error)
        assert app.service.engine.error is None
        yield client


class Running:
    """A server in a thread, and requests to it."""

    def __init__(self, models, waits, **options):
        self.waits = waits
        self.listening = open_port("127.0.0.1", 0)
        self.port = self.listening.getsockname()[1]

        def make(end):
            self.end = end
            self.app = make_app(models, load=models.segmenter, **options)
            return self.app

        self.thread = threading.Thread(target=run, args=(self.listening, make))
        self.thread.start()
        waits(lambda: hasattr(self, "app") and self.app.service.engine.ready)

    def connect(self, data=b""):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(data)
        return connection

    def ask(self, data, path="/v1/segment", method="POST"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, data)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def stop(self):
        self.end()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.listening.close()


@pytest.fixture
def running(models, waits):
    started = []

    def start(**options):
        started.append(Running(models, waits, **options))
        return started[-1]

    yield start
    for server in started:
        if server.thread.is_alive():
            server.stop()
