"""Chromium: a browser without a window, spoken to through its debugging pipe: pages opened, pointed at and measured."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds for one answer: a machine that trains beside is slow."""


def browser_path() -> str | None:
    """Where the browser is, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page; `complaints` are what its console told as errors since the page was opened."""

    def __init__(self, path: str) -> None:
        self.folder = tempfile.mkdtemp()
        read_here, written_there = os.pipe()
        read_there, written_here = os.pipe()
        flags = " ".join(FLAGS)
        # The browser reads from file 3 and writes to file 4.
        command = f'exec "{path}" {flags} --user-data-dir="{self.folder}" --remote-debugging-pipe 3<&{read_there} 4>&{written_there}'
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(read_there, written_there),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_there), os.close(written_there)
        self.read, self.write, self.rest, self.asked = read_here, written_here, b"", 0
        self.complaints: list[str] = []
        self.events: list[str] = []
        self.session: str | None = None
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable", {})

    def message(self) -> dict[str, Any]:
        """The next answer or event.  Raises TimeoutError when the browser is silent or gone."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            body = os.read(self.read, 1 << 20) if ready else b""
            if not body:
                raise TimeoutError("the browser does not answer")
            self.rest += body
        body, _, self.rest = self.rest.partition(b"\0")
        return json.loads(body)

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """What the browser answers."""
        self.asked += 1
        words = {"id": self.asked, "method": method, "params": params}
        os.write(self.write, json.dumps(words | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            found = self.message()
            if found.get("id") == self.asked:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            self.note(found)

    def note(self, event: dict[str, Any]) -> None:
        """Keep what happened, and what the page complains of."""
        name, reported = event.get("method", ""), event.get("params", {})
        self.events.append(name)
        if name == "Runtime.exceptionThrown":
            self.complaints.append(str(reported["exceptionDetails"].get("text")))
        if name == "Runtime.consoleAPICalled" and reported["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([one.get("value") for one in reported["args"]]))
        if name == "Log.entryAdded" and reported["entry"]["level"] in ("error", "warning"):
            self.complaints.append(reported["entry"]["text"])

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        self.complaints, self.events = [], []
        self.point(0, 0)
        self.ask("Page.navigate", {"url": page.resolve().as_uri()})
        while "Page.loadEventFired" not in self.events:
            self.note(self.message())

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.ask("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point(self, x: float, y: float) -> None:
        """Move the mouse there, in pixels of the window."""
        self.ask("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": 9})

    def close(self) -> None:
        """End the browser and leave nothing behind."""
        os.close(self.write), os.close(self.read)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
