"""A line of progress on standard error, once a job has run for two seconds."""

import sys
import time
from typing import Any


class Progress:
    """Called with (iteration, point); overwrites one line on a terminal, prints every ten seconds elsewhere."""

    def __init__(self, wanted: bool, title: str):
        self.wanted, self.title = wanted, title
        self.began = self.last = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.shown = False

    def __call__(self, iteration: int, point: Any) -> None:
        now = time.monotonic()
        if not self.wanted or now - self.began < 2 or now - self.last < (0.2 if self.terminal else 10):
            return
        self.last, self.shown = now, True
        line = f"{self.title}: iteration {iteration}, -2 log L {point.value:.4f}, {now - self.began:.0f} s"
        print(f"\r{line:78s}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown and self.terminal:
            print(file=sys.stderr)
