"""A real server on a free port: what only sockets show."""

import threading
import time

import pytest

from tests.serve.test_app import IMAGE, png
from unpool.errors import OptionError
from unpool.serve.server import open_port

HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def status(connection):
    """The code of the answer on a connection."""
    with connection:
        return int(connection.recv(9999).split(b" ")[1])


def test_bodies_without_an_end(running):
    server = running(body_seconds=0.3)
    slow = [server.connect(HEAD + b"Content-Length: 500\r\n\r\nabc") for _ in range(20)]
    assert server.ask(IMAGE)[0] == 200  # slow clients do not stop others
    assert [status(connection) for connection in slow] == [408] * 20


def test_bodies_whose_size_is_not_stated(running):
    server = running()
    chunked = server.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    try:
        while sent < 40 * 2**20:
            chunked.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
            sent += 2**16
    except OSError:  # the server has closed the connection
        pass
    assert sent < 40 * 2**20
    chunked.close()
    server.waits(lambda: not server.app.service.intake.held)
    requests = server.app.service.metrics._requests
    server.waits(lambda: requests["/v1/segment", 413])


def test_what_comes_behind_a_body_is_another_request(running):
    server = running()
    data = HEAD + b"Content-Length: 5\r\n\r\nhelloGET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    with server.connect(data) as connection:
        connection.settimeout(10)
        seen = b""
        while seen.count(b"HTTP/1.1 ") < 2:
            seen += connection.recv(9999)
    assert seen.startswith(b"HTTP/1.1 415")
    assert b"HTTP/1.1 421" in seen


def test_a_burst_a_client_that_leaves_and_the_end(running, monkeypatch):
    server = running(waiting=2)
    engine, real = server.app.service.engine, server.app.service.models.segmenter()
    gate = threading.Event()

    def slow(image, progress, **options):
        while not gate.wait(0.01):
            progress(0, 1)
        return real(image, **options)

    slow.describe = real.describe
    monkeypatch.setattr(server.app.service.models, "segmenter", lambda *_: slow)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE

    waiting = [server.connect(request) for _ in range(3)]
    server.waits(lambda: engine.jobs == 3)
    code, headers, content = server.ask(IMAGE)
    assert code == 429
    assert int(headers["retry-after"]) >= 1
    assert b"busy" in content
    start = time.perf_counter()
    assert server.ask(None, "/livez", "GET")[0] == 200
    assert server.ask(None, "/readyz", "GET")[0] == 200
    assert time.perf_counter() - start < 5

    for connection in waiting[:2]:  # the one at work, and the first that waits
        connection.close()
    server.waits(lambda: engine.jobs == 1)
    requests = server.app.service.metrics._requests
    server.waits(lambda: requests["/v1/segment", 499] == 2)

    stopping = threading.Thread(target=server.stop)
    stopping.start()
    time.sleep(0.3)
    gate.set()
    assert status(waiting[2]) == 200  # what has begun is finished
    stopping.join(30)
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_two_servers_on_one_port():
    with open_port("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OptionError, match=f"got host=127.0.0.1 and port={port}, where"):
            open_port("127.0.0.1", port)
    with pytest.raises(OptionError, match="choose another port"):
        open_port("192.0.2.1", 0)


def test_large_images_pass(running):
    server = running()
    code, headers, content = server.ask(png(1500, 1000))
    assert code == 200
    assert headers["content-type"] == "image/png"
    assert content[1:4] == b"PNG"
