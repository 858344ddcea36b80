"""Progress: silent for quick jobs, a line for long ones, none where it is not wanted."""

import io
import re
import threading
import time
from types import SimpleNamespace

from nlmefit.core import progress


def test_quick_jobs_are_silent(capsys):
    with progress.Progress(True, "FOCE") as line:
        line(1, SimpleNamespace(value=3.0))
    assert capsys.readouterr().err == ""


def test_a_long_job_shows_where_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with progress.Progress(True, "FOCE") as line:
        time.sleep(0.2)
        line.last -= 20
        line(7, SimpleNamespace(value=3.25))
    shown = capsys.readouterr().err
    assert "FOCE: preparing and compiling, 0 s" in shown
    assert "iteration 7, -2 log L 3.2500" in shown


def test_not_wanted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.Progress(False, "FOCE") as line:
        line.last -= 20
        line(7, SimpleNamespace(value=3.25))
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """A terminal that draws: text, \r, \n and cursor up."""

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[\d+A|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            else:
                lines[row] = lines[row][:column] + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]


def test_lines_of_concurrent_jobs_stand_below_each_other(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    jobs = [progress.Progress(True, name) for name in ("FOCE", "SAEM", "VI")]
    for job in jobs:
        job.__enter__()

    def tell(job, text):
        job.text = text
        job._show()

    for round_ in range(3):
        for job in jobs:
            tell(job, f"iteration {round_}")
    assert terminal.screen() == [f"{name}: iteration 2, 0 s" for name in ("FOCE", "SAEM", "VI")]
    jobs[1].__exit__(None, None, None)
    tell(jobs[0], "iteration 9")
    assert terminal.screen() == ["SAEM: iteration 2, 0 s", "FOCE: iteration 9, 0 s", "VI: iteration 2, 0 s"]
    jobs[0].__exit__(None, None, None)
    jobs[2].__exit__(None, None, None)
    assert terminal.screen() == ["SAEM: iteration 2, 0 s", "FOCE: iteration 9, 0 s", "VI: iteration 2, 0 s", ""]


def test_lines_of_threads_are_whole_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 60.0)

    def work(name):
        with progress.Progress(True, name) as line:
            for k in range(50):
                line.text = f"stage {k}"
                line._show()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 200 and all(re.fullmatch(r"[abcd]: stage \d+, 0 s", line) for line in lines)
