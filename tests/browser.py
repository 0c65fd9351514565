"""Chromium without a window, driven through chromedriver's HTTP protocol by the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

NEEDED = ("chromium", "chromedriver")


def missing():
    """What of the browser is not installed."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Browser:
    """A session of chromedriver."""

    def __init__(self, port):
        self._at = f"http://127.0.0.1:{port}"
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            "binary": shutil.which("chromium"),
        }
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._at += f"/session/{made['sessionId']}"

    def _ask(self, method, path, content=None):
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._at + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.loads(response.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, address):
        self._ask("POST", "/url", {"url": address})

    def run(self, script, *arguments):
        """What a script returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script, wanted, seconds=60):
        """Waits until a script returns something."""
        end = time.monotonic() + seconds
        while (found := self.run(script)) != wanted:
            assert time.monotonic() < end, f"{script} gave {found!r}, not {wanted!r}"
            time.sleep(0.1)

    def size(self, width, height):
        """Sets the size of the page, as a phone or a desk has it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self._ask("POST", "/goog/cdp/execute", command)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def complaints(self):
        """What the page wrote to its console."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def close(self):
        self._ask("DELETE", "")


@contextlib.contextmanager
def browser():
    """A browser, which ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [shutil.which("chromedriver"), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        try:
            end = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert time.monotonic() < end, "chromedriver did not start"
                time.sleep(0.1)
            made = Browser(port)
            try:
                yield made
            finally:
                made.close()
        finally:
            driver.terminate()
