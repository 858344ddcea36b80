"""A line of progress on standard error, once a job has run for two seconds."""

import sys
import threading
import time
from types import TracebackType
from typing import Any

PATIENCE = 2.0
"""Seconds of silence before anything is shown."""


class Progress:
    """One line: overwritten on a terminal five times a second at most, printed every ten seconds elsewhere.

    A context: on leaving, the line is ended. Compiling blocks, so that a timer announces it.
    """

    def __init__(self, wanted: bool, title: str):
        self.wanted, self.title = wanted, title
        self.terminal = sys.stderr.isatty()
        self.began = self.last = time.monotonic()
        self.shown = False
        self.text = "preparing and compiling"
        self._timer = threading.Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> "Progress":
        if self.wanted:
            self._timer.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._timer.cancel()
        if self.shown and self.terminal:
            print(file=sys.stderr)

    def __call__(self, iteration: int, point: Any) -> None:
        """A new iterate of the search."""
        self.stage(f"iteration {iteration}, -2 log L {point.value:.4f}")

    def stage(self, text: str) -> None:
        """What is being done now."""
        self.text = text
        self.tick()

    def tick(self) -> None:
        """A sign of life: shows the line again if it is time."""
        self._timer.cancel()
        now = time.monotonic()
        if self.wanted and now - self.began >= PATIENCE and now - self.last >= (0.2 if self.terminal else 10):
            self._show()

    def _show(self) -> None:
        self.last, self.shown = time.monotonic(), True
        line = f"{self.title}: {self.text}, {self.last - self.began:.0f} s"
        if self.terminal:
            print(f"\r{line:100.100s}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
