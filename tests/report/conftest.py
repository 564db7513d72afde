"""A headless Chromium, driven over the DevTools protocol through two pipes: no package needed."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

COMMAND = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Browser:
    """One page in a headless Chromium; `errors` collects what the console tells."""

    def __init__(self, folder, width=1280, height=900, *, mobile=False):
        here, theirs = os.pipe(), os.pipe()  # commands, answers

        def connect():
            first, second = os.dup(here[0]), os.dup(theirs[1])
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.process = subprocess.Popen(
            [
                *(COMMAND, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"),
                *("--disable-dev-shm-usage", "--disable-background-networking", "about:blank"),
            ],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(here[0])
        os.close(theirs[1])
        self.commands, self.answers = here[1], theirs[0]
        self.rest, self.number, self.session, self.errors = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        told = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = told["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requests = []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        if mobile:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.commands)
        self.process.terminate()
        self.process.wait()
        os.close(self.answers)

    def call(self, method, **params):
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self):
        while b"\0" not in self.rest:
            part = os.read(self.answers, 1 << 16)
            if not part:
                raise RuntimeError("the browser has ended")
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(
                f"{details['text']} {details.get('exception', {}).get('description')}"
            )
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, code):
        """Return what JavaScript evaluates to, promises awaited."""
        options = {"expression": code, "awaitPromise": True, "returnByValue": True}
        told = self.call("Runtime.evaluate", **options)
        if "exceptionDetails" in told:
            raise RuntimeError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    def open(self, path, ready="document.documentElement?.dataset.ready", seconds=60):
        """Open a file and wait until it is ready."""
        self.call("Page.navigate", url=f"file://{path}")
        self.wait(ready, seconds)

    def wait(self, code, seconds=20):
        """Wait until JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({code})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{code} isn't true after {seconds} s; {self.errors}")
            time.sleep(0.05)

    def settle(self):
        """Wait until what was asked for is drawn."""
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, path):
        """Press the mouse at the first point, move it along, release it at the last."""
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.mouse("mousePressed", *path[0], **held)
        for point in path[1:]:
            self.mouse("mouseMoved", *point, button="left", buttons=1)
        self.mouse("mouseReleased", *path[-1], **held)

    def screenshot(self, path=None, *, whole=False):
        """Return a PNG of the page, or write it."""
        options = {"captureBeyondViewport": True} if whole else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "scale": 1}
        data = base64.b64decode(
            self.call("Page.captureScreenshot", format="png", **options)["data"]
        )
        if path is not None:
            path.write_bytes(data)
        return data


@pytest.fixture
def open_page(tmp_path):
    """Function (path, **options) -> Browser with the page; what it opens is closed at the end."""
    if COMMAND is None:
        pytest.skip("needs Chromium on the PATH (chromium, chromium-browser or google-chrome)")
    browsers = []

    def open_page(path, **options):
        browser = Browser(tmp_path / f"browser{len(browsers)}", **options)
        browsers.append(browser)
        browser.open(path)
        return browser

    yield open_page
    for browser in browsers:
        browser.__exit__()
