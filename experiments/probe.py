"""The service from outside: each limit, four times its load, clients that leave, and its end.

Starts `unpool serve` as a process and asks it over sockets. Prints a line of JSON for each check
with `passed`; the exit code is 1 if one has failed. The load is requests at regular times, four
times as many a second as the service answers one after the other, and never fewer when it refuses.

usage: python -m experiments.probe [--weights objects] [--seconds 60] [--image FILE]
"""

import argparse
import http.client
import io
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROUTE = "/v1/segment"
MIB = 2**20
BODY_SECONDS = 20  # in which a body must arrive
TIMED = ("client that leaves", "livez under load", "code 408")
"""The checks that a busy machine may fail."""


class Answer(NamedTuple):
    """What came back; the status is 0 if nothing did."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    content: bytes = b""

    @property
    def clean(self) -> bool:
        """Whether this is a refusal that says when to come again."""
        return self.status == 429 and int(self.headers.get("retry-after", 0)) >= 1


class Server:
    """A process of `unpool serve`."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "unpool", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        address = self.process.stdout.readline()
        if not address:
            assert self.process.stderr
            raise RuntimeError(self.process.stderr.read())
        self.port = int(address.rpartition(":")[2])
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.log.extend(self.process.stderr)

    def close(self) -> None:
        """End it at once, if it has not ended."""
        self.process.kill()
        self._reader.join()
        self.process.communicate()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request; status 0 if the server does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        except (OSError, http.client.HTTPException):
            return Answer(0)
        finally:
            connection.close()

    def post(self, body: bytes, query: str = "", **headers: str) -> Answer:
        """An image to segment."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"{ROUTE}{query}", body, named)

    def connect(self, data: bytes) -> socket.socket:
        """A connection on which something has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(data)
        return connection

    def metric(self, name: str) -> float:
        """A value of /metrics; 0 if it is not there."""
        for line in self.ask("GET", "/metrics").content.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def wait_for(self, condition: Callable[[], bool], seconds: float = 300) -> float:
        """The seconds until something is true."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds or self.process.poll() is not None:
                raise TimeoutError("".join(self.log[-20:]))
            time.sleep(0.02)
        return time.monotonic() - start

    def ready(self) -> bool:
        """Whether it accepts requests."""
        return self.ask("GET", "/readyz").status == 200


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server, which ends with the context."""
    server = Server(*options)
    try:
        yield server
    finally:
        server.close()


def made_image(width: int = 500, height: int = 375) -> bytes:
    """A JPEG of soft colors."""
    cells = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A small PNG whose header says that it is large."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def head(length: int | None) -> bytes:
    """The beginning of a request; chunked without a length."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {ROUTE} HTTP/1.1\r\nHost: 127.0.0.1\r\n{size}\r\n\r\n".encode()


def status_of(connection: socket.socket) -> int:
    """The code that came on a connection; 0 if it was closed without one."""
    with connection:
        try:
            return int(connection.recv(4096).split(b" ")[1])
        except (OSError, IndexError):
            return 0


def chunked(server: Server) -> int:
    """The code of the answer to a body whose size is not told."""
    connection = server.connect(head(None))
    try:
        for _ in range(20 * 16 + 1):
            connection.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
    except OSError:
        pass
    return status_of(connection)


Report = Callable[..., None]


def check_codes(server: Server, image: bytes, report: Report) -> None:
    """Each limit that one request can reach."""
    other = {"origin": "http://evil.example"}
    own = {"origin": f"http://127.0.0.1:{server.port}", "sec-fetch-site": "same-origin"}
    found = {
        "413 told": (server.post(bytes(21 * MIB)).status, 413),
        "413 chunked": (chunked(server), 413),
        "413 pixels": (server.post(bomb()).status, 413),
        "415 text": (server.post(b"hello").status, 415),
        "415 cut": (server.post(image[: len(image) // 2]).status, 415),
        "422": (server.post(image, "?mode=all").status, 422),
        "400": (server.post(b"").status, 400),
        "404": (server.ask("GET", "/etc/passwd").status, 404),
        "405": (server.ask("GET", ROUTE).status, 405),
        "421": (server.post(image, host="evil.example").status, 421),
        "421 prefix": (server.post(image, host="localhost.evil.example").status, 421),
        "403 origin": (server.post(image, **other).status, 403),
        "403 null": (server.post(image, origin="null").status, 403),
        "403 site": (server.post(image, sec_fetch_site="cross-site").status, 403),
        "200 own page": (server.post(image, **own).status, 200),
        "200 localhost": (server.post(image, host=f"localhost:{server.port}").status, 200),
    }
    for name, (got, wanted) in found.items():
        report(f"code {name}", got == wanted, got=got)


def check_burst(server: Server, image: bytes, report: Report, count: int = 24) -> None:
    """More requests at once than may wait."""
    right = server.post(image).content
    with ThreadPoolExecutor(count) as pool:
        answers = [*pool.map(lambda _: server.post(image), range(count))]
    codes = Counter(answer.status for answer in answers)
    good = all(a.content == right if a.status == 200 else a.clean for a in answers)
    report("burst", good and codes[429] > 0 and codes[200] >= 9, codes=codes)


def check_slow(server: Server, image: bytes, report: Report, wait: bool = True) -> None:
    """Twenty clients that never end their requests."""
    for name, data in (("bodies", head(500) + b"abc"), ("headers", head(500)[:30])):
        slow = [server.connect(data) for _ in range(20)]
        start = time.monotonic()
        report(f"21st beside slow {name}", server.post(image).status == 200,
               seconds=round(time.monotonic() - start, 3))  # fmt: skip
        if wait and name == "bodies":
            codes = Counter(map(status_of, slow))
            seconds = round(time.monotonic() - start, 1)
            report("code 408", codes == {408: 20} and seconds < BODY_SECONDS + 5,
                   codes=codes, seconds=seconds)  # fmt: skip
        for connection in slow:
            connection.close()


def check_leaving(server: Server, image: bytes, report: Report) -> None:
    """A client that leaves while its image is worked on."""
    body = head(len(image)).replace(b" HTTP", b"?mode=instance&proposals=2000 HTTP", 1) + image
    left = 'unpool_requests_total{route="/v1/segment",status="499"}'
    before = server.metric(left)
    connection = server.connect(body)
    server.wait_for(lambda: server.metric("unpool_jobs") == 1)
    time.sleep(0.5)
    at_work = server.metric("unpool_jobs") == 1
    connection.close()
    free = server.wait_for(lambda: server.metric("unpool_jobs") == 0)
    start = time.monotonic()
    served = server.post(image).status == 200
    stopped = server.metric(left) - before == 1
    report("client that leaves", at_work and served and stopped and free < 3,
           seconds=round(free, 3), next_answer=round(time.monotonic() - start, 3))  # fmt: skip


Sent = list[tuple[float, "Future[Answer]"]]


def load(server: Server, image: bytes, rate: float, seconds: float, pool: ThreadPoolExecutor,
         each: Callable[[float], None] = lambda now: None) -> Sent:  # fmt: skip
    """Requests at regular times, with the time of each."""
    sent: Sent = []
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        if len(sent) < now * rate:
            sent.append((time.monotonic(), pool.submit(server.post, image)))
        each(now)
        time.sleep(0.002)
    return sent


def capacity(server: Server, image: bytes) -> float:
    """Requests a second, one after the other."""
    server.post(image)
    start = time.monotonic()
    for _ in range(8):
        assert server.post(image).status == 200
    return 8 / (time.monotonic() - start)


def check_load(server: Server, image: bytes, report: Report, seconds: float) -> None:
    """Four times what it can do, while it is asked whether it lives."""
    right, rate = server.post(image).content, 4 * capacity(server, image)
    alive, memory, stop = list[float](), list[float](), threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            start = time.perf_counter()
            status = server.ask("GET", "/livez").status
            alive.append(1000 * (time.perf_counter() - start) if status == 200 else float("inf"))
            if len(alive) % 10 == 1:
                memory.append(server.metric("process_resident_memory_bytes") / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(48) as pool:
        answers = [future.result() for _, future in load(server, image, rate, seconds, pool)]
    stop.set()
    watcher.join()
    codes = Counter(answer.status for answer in answers)
    good = all(a.content == right if a.status == 200 else a.clean for a in answers)
    report("load", good and codes[200] > 0, seconds=seconds, rate=round(rate, 1),
           offered=round(len(answers) / seconds, 1), codes=codes)  # fmt: skip
    alive.sort()
    median, high = statistics.median(alive), alive[int(0.99 * (len(alive) - 1))]
    times = {"median_ms": median, "p99_ms": high, "most_ms": alive[-1]}
    times = {name: round(value, 1) for name, value in times.items()}
    report("livez under load", median < 50 and high < 50, samples=len(alive), **times)
    quarter = max(1, len(memory) // 4)
    first, last = (statistics.median(part) for part in (memory[:quarter], memory[-quarter:]))
    report("memory under load", last < 1.05 * first + 16, first_mib=round(first),
           last_mib=round(last), most_mib=round(max(memory)))  # fmt: skip


def check_end(server: Server, image: bytes, report: Report) -> None:
    """SIGTERM under load."""
    right, rate = server.post(image).content, 4 * capacity(server, image)
    ended: list[float] = []

    def end(now: float) -> None:
        if now > 3 and not ended:
            server.process.send_signal(signal.SIGTERM)
            ended.append(time.monotonic())

    with ThreadPoolExecutor(48) as pool:
        sent = load(server, image, rate, 4, pool, end)
        code = server.process.wait(60)
        seconds = time.monotonic() - ended[0]
        answers = [(at, future.result()) for at, future in sent]
    before = [answer for at, answer in answers if at < ended[0] - 0.1]
    good = all(a.content == right if a.status == 200 else a.clean for a in before)
    late = Counter(answer.status for at, answer in answers if at > ended[0] + 0.1)
    report("end under load", good and code == 0 and not late[200], code=code,
           seconds=round(seconds, 2), before=Counter(a.status for a in before),
           later=late)  # fmt: skip


def check_start(options: Sequence[str], image: bytes, report: Report) -> None:
    """What is refused while the weights are loaded, without a key, and beyond the time."""
    with serving(*options, "--key", "secret", "--timeout", "0.001") as server:
        key = {"authorization": "Bearer secret"}
        early = server.post(image, **key)
        loading = early.status, server.ask("GET", "/readyz").status
        alive = server.ask("GET", "/livez").status
        report("code 503 while loading", loading == (503, 503) and alive == 200
               and "retry-after" in early.headers, got=loading)  # fmt: skip
        report("ready", True, seconds=round(server.wait_for(server.ready), 1))
        for name, headers in (("none", {}), ("wrong", {"authorization": "Bearer x"})):
            got = server.post(image, **headers)
            good = got.status == 401 and "www-authenticate" in got.headers
            report(f"code 401, key {name}", good, got=got.status)
        got = server.post(image, **key)
        report("code 504", got.status == 504, got=got.status)


def probe(options: Sequence[str], image: bytes, seconds: float, slow: bool = True) -> list[str]:
    """Run all checks; the names of those that have failed.

    Args:
        options: of `unpool serve`.
        image: the bytes of a file.
        seconds: of the load.
        slow: wait until slow bodies are refused.
    """
    failed = []

    def report(name: str, passed: bool, **facts: Any) -> None:
        print(json.dumps({"check": name, "passed": passed, **facts}), flush=True)
        if not passed:
            failed.append(name)

    check_start(options, image, report)
    with serving(*options) as server:
        server.wait_for(server.ready)
        check_codes(server, image, report)
        check_burst(server, image, report)
        check_leaving(server, image, report)
        check_slow(server, image, report, slow)
        check_load(server, image, report, seconds)
        check_end(server, image, report)
        faults = [line for line in server.log if re.search(r"^\S+ \S+ 500 |Traceback", line)]
        report("no faults in the log", not faults, lines=len(server.log), faults=faults[:3])
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="objects")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--image", type=Path, help="one of 500 x 375 is made up without it")
    given = parser.parse_args()
    image = given.image.read_bytes() if given.image else made_image()
    return int(bool(probe(["--weights", given.weights], image, given.seconds)))


if __name__ == "__main__":
    sys.exit(main())
