"""Progress: silent for quick jobs, a line for long ones, none where it is not wanted."""

import time
from types import SimpleNamespace

from nlmefit import progress


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
