"""A line of progress on standard error, once a job has run for two seconds."""

import sys
import threading
import time
from types import TracebackType
from typing import Any

from nlmefit.core.options import check_truth

PATIENCE = 2.0
"""Seconds of silence before anything is shown."""
WIDTH = 100
"""Letters of a line on a terminal."""


class Progress:
    """One line: overwritten on a terminal five times a second at most, printed every ten seconds elsewhere.

    A context: on leaving, the line is ended. Compiling blocks, so that a timer announces it.
    """

    def __init__(self, wanted: bool, title: str):
        self.wanted, self.title = check_truth("progress", wanted), title
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
        if self.shown:
            _SCREEN.end(self)

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
        _SCREEN.show(self)

    @property
    def line(self) -> str:
        return f"{self.title}: {self.text}, {self.last - self.began:.0f} s"


class _Screen:
    """The lines of all jobs that run at the same time, in whatever threads: one below the other on a terminal."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: list[Progress] = []
        self.height = 0

    def show(self, job: Progress) -> None:
        with self.lock:
            if not job.terminal:
                sys.stderr.write(f"{job.line}\n")
                sys.stderr.flush()
                return
            if job not in self.jobs:
                self.jobs.append(job)
            self._draw()

    def end(self, job: Progress) -> None:
        """Leaves the job's last line above those of the others."""
        with self.lock:
            if job not in self.jobs:
                return
            self.jobs.sort(key=lambda other: other is not job)
            self._draw()
            self.jobs.remove(job)
            self.height -= 1
            if not self.jobs:
                print(file=sys.stderr)

    def _draw(self) -> None:
        up = f"\x1b[{self.height - 1}A" if self.height > 1 else ""
        text = "\n".join(f"\r{job.line:{WIDTH}.{WIDTH}s}" for job in self.jobs)
        self.height = len(self.jobs)
        print(f"{up}{text}", end="", file=sys.stderr, flush=True)


_SCREEN = _Screen()
"""There is but one standard error."""
