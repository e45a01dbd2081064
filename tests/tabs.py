"""A tab in Chromium for the tests of the lab: as that of the circuit's page, and
it waits for promises."""

import json
import time
from pathlib import Path

from test_circuit_page import Browser


class Tab(Browser):
    """One tab; what it is asked may be a promise."""

    def value(self, expression: str):
        """What an expression comes to, a promise included."""
        found = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 60):
        """Wait until an expression is true of the page."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            shown = self.value("document.body.innerText")[:600]
            assert time.monotonic() < end, (
                f"{expression} is not so after {seconds} s: {shown}"
            )
            time.sleep(0.03)
        return found

    def count(self, selector: str) -> int:
        return self.value(f"document.querySelectorAll({json.dumps(selector)}).length")

    def button(self, text: str) -> None:
        """Click the button that says so, with the mouse."""
        found = (
            "[...document.querySelectorAll('button')].find((e) => e.textContent === "
            f"{json.dumps(text)})"
        )
        self.value(f"{found}.dataset.wanted = ''")
        self.click("[data-wanted]")
        self.value(
            "document.querySelectorAll('[data-wanted]').forEach((e) => { delete "
            "e.dataset.wanted; })"
        )

    def enter(self) -> None:
        """Press the Enter key, as it presses a button."""
        for kind, text in (("keyDown", {"text": "\r"}), ("keyUp", {})):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                windowsVirtualKeyCode=13,
                **text,
            )

    def shot(self, path: Path) -> None:
        """A picture of the whole page."""
        import base64

        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": 0,
            "width": size["width"],
            "height": size["height"],
            "scale": 1,
        }
        picture = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip=clip,
        )
        path.write_bytes(base64.b64decode(picture["data"]))
