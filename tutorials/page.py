"""A tutorial's page from its script: text, code, and what the code printed.

    python tutorials/page.py generative

runs `tutorials/generative.py` from top to bottom and writes `tutorials/generative.md`. A script is an ordinary one, in cells that
begin with `# %%`: comments at a cell's top are the text, in Markdown, the rest is the code. The first cell is the script's own
docstring and is left out.
"""

import contextlib
import io
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Cell(NamedTuple):
    """One step of a tutorial."""

    text: str
    code: str


def cells(script: str) -> list[Cell]:
    """The script's cells, in their order."""
    return [_cell(part) for part in script.split("\n# %%\n")[1:]]


def _cell(part: str) -> Cell:
    lines = part.strip("\n").split("\n")
    size = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = "\n".join(line[2:] if line.startswith("# ") else "" for line in lines[:size])
    return Cell(text, "\n".join(lines[size:]).strip("\n"))


def page(path: Path) -> str:
    """The page of a script, which is run for it."""
    script, names = path.read_text(encoding="utf-8"), {"__name__": "__main__", "__file__": str(path)}
    parts = [f"<!-- Made by `python tutorials/page.py {path.stem}`; edit {path.name}. -->"]
    for cell in cells(script):
        parts.append(cell.text)
        if not cell.code:
            continue
        printed, began = io.StringIO(), time.perf_counter()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.code, str(path), "exec"), names)  # of this folder, as `python generative.py` would run it
        print(f"{time.perf_counter() - began:6.1f} s  {cell.text.splitlines()[0] if cell.text else ''}", flush=True)
        parts.append(f"```python\n{cell.code}\n```")
        if printed.getvalue().strip():
            parts.append(f"```text\n{printed.getvalue().rstrip()}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def main(names: list[str]) -> None:
    for name in names:
        path = HERE / f"{name}.py"
        path.with_suffix(".md").write_text(page(path), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
