"""Drive headless Chromium through its DevTools protocol, over a pipe: no package and no network are needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 60


def find_browser() -> str | None:
    """Return the program; ``None`` where there is none, or on Windows, which has no such pipes."""
    found = (shutil.which(name) for name in _NAMES)
    return None if sys.platform == "win32" else next((path for path in found if path), None)


class Browser:
    """One page in a headless browser.

    :param folder: for its profile.
    """

    def __init__(self, folder: Path, width: int = 1200, height: int = 900) -> None:
        to_browser, from_browser = os.pipe(), os.pipe()
        ends = (to_browser[0], from_browser[1])

        def numbered() -> None:  # the browser reads from 3 and writes to 4
            spare = [os.dup(end) for end in ends]
            high = [os.dup2(end, 30 + index) for index, end in enumerate(spare)]
            for index, end in enumerate(high):
                os.dup2(end, 3 + index)
            for index in (0, 1):
                os.set_inheritable(3 + index, True)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(
            [find_browser() or "", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=numbered,
            close_fds=False,
            start_new_session=True,
        )
        for end in ends:
            os.close(end)
        self._send_end, self._receive_end = to_browser[1], from_browser[0]
        self._number, self._left = 0, b""
        self.events: list[dict[str, Any]] = []
        (page,) = (t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer of the page to one method of the protocol."""
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._send_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            part = os.read(self._receive_end, 1 << 20)
            if not part:
                raise AssertionError("The browser has ended.")
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def open(self, address: str) -> None:
        """Open an address anew, and wait until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + _SECONDS
        while not self.value(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise AssertionError(f"Not within {_SECONDS} s: {condition}")
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of the promise that it gives."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key, such as ("Tab", 9) or ("Enter", 13, "\\r")."""
        what = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **what, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def faults(self) -> list[str]:
        """Return errors of scripts and of the page's policy since the page was opened."""
        texts = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                texts.append(str(parameters["exceptionDetails"]))
            if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                texts.append(parameters["entry"]["text"])
        return texts

    def requests(self) -> list[str]:
        """Return the addresses that were requested since the page was opened, without those in the page itself."""
        sent = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [address for address in sent if not address.startswith("data:")]

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.close(self._send_end)  # which ends the browser
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._receive_end)
