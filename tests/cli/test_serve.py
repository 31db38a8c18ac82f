"""`unpool serve` and `unpool studio`: what is refused, and a process that ends by a signal."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.cli.files import photo, save
from unpool.cli import main


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--host", "0.0.0.0"], "got --host 0.0.0.0 without a key"),
        (["--key", "a", "--no-key"], "leave one of them out"),
        (["--key", "a\nb"], "wanted printable ASCII"),
        (["--weights", "nowhere"], "nowhere"),
        (["--generator", "nowhere"], "nowhere"),
        (["--port", "70000"], "70000"),
        (["--waiting", "-1"], "-1"),
    ],
)
def test_refusals(refused, args, message):
    assert message in refused("serve", "--port", 0, *args)


def test_the_missing_extra_has_its_cure(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    message = refused("serve", "--port", 0)
    assert message.endswith("pip install 'unpool[serve]'")
    assert "uvicorn" in message


def test_a_port_in_use(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}" in refused("serve", "--port", port)


def test_a_service_until_sigterm(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save("cat.png", photo())
    assert main(["segment", "cat.png", "--weights", weights, "-o", "out", "--quiet"]) == 0
    command = [sys.executable, "-m", "unpool", "serve", "--port", "0", "--weights", weights]
    env = {**os.environ, "UNPOOL_KEY": "secret"}
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=env) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            headers = {"Authorization": "Bearer secret"}
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/readyz", timeout=30).close()
                    break
                except urllib.error.HTTPError as error:  # 503
                    error.close()
                    time.sleep(0.1)
            request = urllib.request.Request(
                f"{address}/v1/segment", path.read_bytes(), headers, method="POST"
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                mask = answer.read()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert out == ""
    assert err.startswith("POST /v1/segment 200 ")
    assert mask == (tmp_path / "out/cat.png").read_bytes()


def test_the_studio_has_pages_and_opens_a_browser(weights, tmp_path):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "unpool", "studio", "--port", "0", "--weights", weights]
    env = {**os.environ, "BROWSER": f"{browser} %s"}
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=env) as process:
        try:
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert b"<title>unpool studio</title>" in answer.read()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert opened.read_text().strip() == address


def test_the_folder_of_results_exists(refused):
    assert "nowhere" in refused("studio", "--no-browser", "--port", 0, "--results", "nowhere")
