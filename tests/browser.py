"""A headless Chromium driven over its debugging pipe (Chrome DevTools Protocol), with what Python has and no more."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0
"""For one answer, on a machine that has other things to do."""


def installed_browser() -> str | None:
    """The path of the first of NAMES that there is and starts; a distribution may have a stand-in that does not."""
    for name in NAMES:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True, timeout=SECONDS).returncode == 0:
            return path
    return None


class Browser:
    """One page of a browser of its own, with its profile in `folder`; to be used in a `with` statement.

    Attributes:
        complaints: what the page wrote to the console as a warning or error, exceptions and refused requests.
        requested: addresses that it asked for.
        asked: kinds of the questions that it put to its user, such as "beforeunload"; all are answered yes.
    """

    def __init__(self, executable: str, folder: Path) -> None:
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self.asked: list[str] = []
        self._number, self._received = 0, b""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            # the browser reads commands from descriptor 3 and writes answers to 4
            ["sh", "-c", f'exec "$0" "$@" 3</dev/fd/{high[0]} 4>/dev/fd/{high[1]}', executable, *options],
            pass_fds=high,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        self._out, self._in = ours_out, ours_in
        self._session: str | None = None

    def __enter__(self) -> Browser:
        try:
            pages = self.send("Target.getTargets")["targetInfos"]
            target = next(page["targetId"] for page in pages if page["type"] == "page")
            self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command."""
        number = self._write(method, params)
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def _write(self, method: str, params: Mapping[str, Any]) -> int:
        """Give a command; returns its number, which its answer has too."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._out, json.dumps(command).encode() + b"\0")
        return self._number

    def open(
        self, address: str, *, width: int = 1280, height: int = 900, media: Mapping[str, str] | None = None
    ) -> None:
        """Load an address in a window of that size, with those media features, such as prefers-color-scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": name, "value": value} for name, value in (media or {}).items()]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url="about:blank")
        assert self.becomes("location.href", "about:blank"), "the page before is not left"  # it may have asked first
        for noted in (self.complaints, self.requested, self.asked):
            noted.clear()
        self.send("Page.navigate", url=address)
        deadline = time.monotonic() + SECONDS
        while self.run("document.readyState + location.href.slice(0, 5)") != f"complete{address[:5]}":
            assert time.monotonic() < deadline, f"{address} does not finish loading"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def becomes(self, script: str, value: Any) -> bool:
        """Whether an expression gets this value within seconds: events such as a dialog's close come later."""
        deadline = time.monotonic() + SECONDS
        while self.run(script) != value:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def press(self, *keys: str) -> None:
        """Press and release keys one after another, by their names in KeyboardEvent.key, also a letter or digit."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            event = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key) or ord(key.upper())}
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self, *, whole: bool = False) -> bytes:
        """What the window shows, or the whole page, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _message(self) -> dict[str, Any]:
        """The next answer or event; events are taken note of."""
        deadline = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._in, selectors.EVENT_READ)
            while b"\0" not in self._received:
                assert waiting.select(max(0.0, deadline - time.monotonic())), "the browser does not answer"
                part = os.read(self._in, 1 << 20)
                assert part, "the browser has ended"
                self._received += part
        text, self._received = self._received.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif message.get("method") == "Page.javascriptDialogOpening":
            self.asked.append(params["type"])
            self._write("Page.handleJavaScriptDialog", {"accept": True})
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.complaints.append(params["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(params["args"]))
        return message

    def _end(self) -> None:
        for end in (self._out, self._in):
            os.close(end)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
