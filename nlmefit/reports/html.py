"""HTML from Python values. Text is escaped unless it is HTML already, so that nothing a user wrote becomes a tag."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib takes most of a second to import
    from matplotlib.figure import Figure

LARGEST_SVG = 1_500_000
"""Bytes; a larger figure is a PNG."""
TALL = 0.85
"""Height over width from which on a figure has a printed page for itself."""


class Html(str):
    """Text that is HTML."""


def tag(name: str, *content: str, **attributes: str) -> Html:
    """An element; `class_` stands for the attribute `class`, `data_x` for `data-x`."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{inside(*content)}</{name}>")


def inside(*content: str) -> Html:
    """Pieces one after the other, each escaped unless it is HTML."""
    return Html("".join(piece if isinstance(piece, Html) else escape(piece) for piece in content))


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = ()) -> Html:
    """A table whose first column names the rows; the others are right-aligned but for the `text_columns`."""

    def style(k: int) -> dict[str, str]:
        return {"class_": "text"} if k in text_columns or k == 0 else {}

    head = tag("tr", *(tag("th", name, scope="col", **style(k)) for k, name in enumerate(headers)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_="text"),
            *(tag("td", cell, **style(k)) for k, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    return tag("div", tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body)), class_="table")


def definitions(pairs: Iterable[tuple[str, str]]) -> Html:
    return tag("dl", *(tag("div", tag("dt", key), tag("dd", value)) for key, value in pairs))


def picture(figure: "Figure", alternative: str) -> Html:
    """A figure within the page: as vector graphics, or as pixels where those would be too long."""
    kind, content = "svg+xml", io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    if content.tell() > LARGEST_SVG:
        kind, content = "png", io.BytesIO()
        figure.savefig(content, format="png", dpi=160)
    source = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
    width, height = figure.get_size_inches()
    shape = "tall" if height > TALL * width else "wide"
    return Html(f'<img class="{shape}" src="{source}" alt="{escape(alternative)}" style="width: {width:.2f}in">')
