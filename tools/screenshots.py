"""Make pictures of pages of the built site as a desktop and a phone show them.

From the root of the repository, after ``tools/docs.sh``; Chromium must be installed:

    python tools/screenshots.py doc/_build/html screenshots
    python tools/screenshots.py doc/_build/html screenshots --pages index recipes

It opens the pages from the files, without a network, and ends with 1 if a page is
wider than the screen, if a picture or a script is missing, or if a script of the page
fails.  What the pictures show is for a person to judge.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

PAGES = (
    "index",
    "get_started",
    "auto_examples/index",
    "guide",
    "recipes",
    "commands",
    "api",
    "generated/dipy_dl_reg.DeepRegistration",
    "benchmark",
    "networks",
)
#: Names of the screens, and their widths and heights in pixels.
SCREENS = {"desktop": (1440, 900), "phone": (390, 844)}
#: Longer pages are cut off, pixels.
LONGEST = 6000
#: Seconds that a page may take.
PATIENCE = 60
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

#: What is wrong with a page, as a list of texts: it is wider than the screen, and which
#: parts are (those in a box that scrolls by itself are fine); pictures are missing.
#: Not the width of the window, because a phone shows wide pages smaller.
CHECK = """
(() => {
  const wide = document.documentElement.scrollWidth - WIDTH;
  const faults = [];
  const scrolls = (e) => {
    for (; e && e !== document.body; e = e.parentElement)
      if (getComputedStyle(e).overflowX !== 'visible') return true;
    return false;
  };
  if (wide > 1) {
    faults.push(`wider than the screen by ${wide} pixels`);
    for (const e of document.querySelectorAll('main *')) {
      const right = e.getBoundingClientRect().right;
      if (right > WIDTH + 1 && !scrolls(e) && faults.length < 5)
        faults.push(`  ${e.tagName.toLowerCase()}.${e.className} to ` +
          `${Math.round(right)}: ${e.textContent.trim().slice(0, 50)}`);
    }
  }
  for (const picture of document.images)
    if (picture.complete && !picture.naturalWidth)
      faults.push(`picture is missing: ${picture.src}`);
  return faults;
})()
"""


class View(NamedTuple):
    """A page on a screen: the picture, and what is wrong."""

    picture: bytes
    faults: list[str]


class Browser:
    """Chromium, driven by the messages of its developer tools through two pipes."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.buffer, self.number, self.events = b"", 0, list[dict[str, Any]]()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    session: dict[str, str] = {}

    def read(self) -> dict[str, Any]:
        """Read the next message."""
        while b"\0" not in self.buffer:
            data = os.read(self.from_browser, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result; keep what happens before it."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to_browser, json.dumps(message | self.session).encode() + b"\0")
        while (answer := self.read()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, code: str) -> Any:
        """Value of JavaScript code in the page."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        return found["result"].get("value")

    def view(self, path: Path, width: int, height: int) -> View:
        """Open a page on a screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait()
        check = CHECK.replace("WIDTH", str(width))
        faults = [*self.evaluate(check), *self.find_failures()]
        long = min(int(self.evaluate("document.documentElement.scrollHeight")), LONGEST)
        clip = {"x": 0, "y": 0, "width": width, "height": max(long, height), "scale": 1}
        picture = self.call(
            "Page.captureScreenshot", clip=clip, captureBeyondViewport=True
        )
        return View(base64.b64decode(picture["data"]), faults)

    def wait(self) -> None:
        """Wait until the page, its fonts and its formulae are there."""
        ready = (
            "document.readyState === 'complete' && document.fonts.status === 'loaded'"
            " && (!window.MathJax?.startup?.promise || window.mathIsReady ||"
            " (MathJax.startup.promise.then(() => { window.mathIsReady = true; }),"
            " false))"
        )
        end = time.monotonic() + PATIENCE
        while not self.evaluate(ready):
            if time.monotonic() > end:
                raise RuntimeError(f"the page is not there after {PATIENCE} s")
            time.sleep(0.1)
        # Pictures that load when they are scrolled to.
        self.evaluate(
            "document.querySelectorAll('img').forEach(i => i.loading='eager')"
        )
        time.sleep(0.3)

    def find_failures(self) -> Iterator[str]:
        """Files that could not be loaded, and errors of scripts."""
        urls = {}
        for event in self.events:
            given = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                urls[given["requestId"]] = given["request"]["url"]
            elif event.get("method") == "Network.loadingFailed":
                yield f"not loaded: {urls.get(given['requestId'])}"
            elif event.get("method") == "Runtime.exceptionThrown":
                details = given["exceptionDetails"]
                text = details.get("exception", {}).get("description", details["text"])
                yield f"error of a script: {text.splitlines()[0]}"


@contextmanager
def start_browser(program: str) -> Iterator[Browser]:
    """Start Chromium without a window, and end it."""

    def pipe() -> tuple[int, int]:
        # Above the numbers 3 and 4 that the browser expects.
        ends = os.pipe()
        high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in ends)
        for end in ends:
            os.close(end)
        return high[0], high[1]

    (its_input, to_browser), (from_browser, its_output) = pipe(), pipe()

    def connect() -> None:
        os.dup2(its_input, 3)
        os.dup2(its_output, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe"]
        options += ["--hide-scrollbars", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--disable-background-networking", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [program, *options],
            preexec_fn=connect,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            process.kill()
            process.wait()
            os.close(to_browser)
            os.close(from_browser)


def main() -> int:
    """Make all pictures; return the code of the process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path, help="folder of the built site")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("--pages", nargs="+", default=PAGES, help="without .html")
    parser.add_argument("--chromium", help="the program, if it is not in PATH")
    options = parser.parse_args()
    program = options.chromium or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        parser.error("Chromium is not installed: give --chromium PATH")
    missing = [p for p in options.pages if not (options.site / f"{p}.html").is_file()]
    if missing:
        parser.error(f"{options.site} has no {', '.join(missing)}")
    options.out.mkdir(parents=True, exist_ok=True)
    count = 0
    with start_browser(program) as browser:
        for page in options.pages:
            for screen, size in SCREENS.items():
                view = browser.view(options.site / f"{page}.html", *size)
                name = f"{page.replace('/', '_')}_{screen}.png"
                (options.out / name).write_bytes(view.picture)
                for fault in view.faults:
                    print(f"{page}, {screen}: {fault}")
                count += len(view.faults)
    print(f"{len(options.pages)} pages on {len(SCREENS)} screens: {count} faults")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
