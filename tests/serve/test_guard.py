"""Host, origin and key: who is refused, with which code."""

import base64

import pytest

from unpool.serve.guard import HEADERS, LOOPBACK, Guard
from unpool.serve.refusals import Refusal


def status(headers, method="POST", path="/v1/segment", **options):
    try:
        Guard(None, **options).check(method, path, {"host": "127.0.0.1:8000", **headers})
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "LOCALHOST", "[::1]:8000", "[::1]"])
def test_own_hosts(host):
    assert status({"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "[", "::1",
     "127.0.0.2", "localhost@evil.example", "evil.example#localhost", "a:b:c", "\xff"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_foreign_hosts(host, method):
    assert status({"host": host}, method) == 421
    assert status({"host": host}, method, "/livez") == 421


def test_allowed_hosts():
    hosts = [*LOOPBACK, "Masks.example"]
    assert status({"host": "masks.example:443"}, hosts=hosts) == 200
    assert status({"host": "x.masks.example"}, hosts=hosts) == 421


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "https://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://evil.example/127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8000"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_post(headers, code):
    assert status(headers) == code
    assert status(headers, "DELETE") == code
    assert status(headers, "GET") == 200


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("Bearer secret", 200),
        ("bearer  secret ", 200),
        (basic("anyone:secret"), 200),
        (basic("secret"), 401),
        (basic("secret:"), 401),
        ("Basic !!!", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer secre", 401),
        ("Bearer secrets", 401),
        ("Bearer \xff", 401),
        ("secret", 401),
        ("", 401),
    ],
)
def test_the_key(given, code):
    assert status({"authorization": given}, key="secret") == code
    assert status({"authorization": given}, "GET", "/metrics", key="secret") == code
    assert status({"authorization": given}, "GET", "/livez", key="secret") == 200
    assert status({"authorization": given}) == 200  # no key is asked for


def test_answers_have_the_headers_also_when_refused(calls):
    for answer in (calls.get("/livez"), calls.get("/livez", headers={"host": "evil.example"})):
        assert HEADERS.items() <= dict(answer.headers).items()
    assert answer.status_code == 421
    assert list(answer.json()) == ["error"]


def test_messages_have_their_cure():
    with pytest.raises(Refusal, match="send the header 'Authorization: Bearer KEY'"):
        Guard(None, key="x").check("GET", "/metrics", {"host": "localhost"})
    with pytest.raises(Refusal, match="name it with --allow-host") as refused:
        Guard(None).check("GET", "/metrics", {"host": "x" * 5000})
    assert len(str(refused.value)) < 200
