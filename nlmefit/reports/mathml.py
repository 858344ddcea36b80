"""The LaTeX that a model prints of itself, as MathML, which browsers draw without help.

rows       an `aligned` block, a row per equation, its two sides parted by &
atoms      numbers, letters, \\mathrm{..}, \\text{..}, \\operatorname{..}, Greek letters, {..}, \\frac{..}{..}, cases, signs
scripts    atom_..., atom^..., or both
"""

import re
from html import escape

from nlmefit.reports.html import Html, tag

_TOKEN = re.compile(r"\s+|\\text\{[^{}]*\}|\\[a-zA-Z]+|\\[,\\]|\d+(?:\.\d+)?(?:e[+-]?\d+)?|<=|>=|!=|.", re.DOTALL)
_SYMBOLS = {
    r"\eta": "η", r"\kappa": "κ", r"\omega": "ω", r"\beta": "β", r"\sigma": "σ", r"\theta": "θ", r"\gamma": "γ", r"\Omega": "Ω",
}  # fmt: skip
_SIGNS = {r"\sim": "∼", "<=": "≤", ">=": "≥", "!=": "≠", "-": "−", "*": "·"}
_SPACES = {r"\,": "0.17em", r"\quad": "1em"}
_END = ""


class UnknownLatex(ValueError):
    """Something that is not translated."""


def equations(latex: str) -> Html:
    """An `aligned` block as rows of MathML. Raises UnknownLatex for anything beyond what models print."""
    body = re.fullmatch(r"\s*\\begin\{aligned\}\n(.*)\n\\end\{aligned\}\s*", latex, re.DOTALL)
    if body is None:
        raise UnknownLatex("no aligned block")
    return tag("div", *(_row(row) for row in body[1].split(" \\\\\n")), class_="equations")


def _row(latex: str) -> Html:
    left, parted, right = latex.partition("&")
    if not parted:
        raise UnknownLatex(f"a row without &: {latex}")
    return tag("div", _math(left, "left"), _math(right, "right"), class_="equation")


def _math(latex: str, side: str) -> Html:
    content = _Parser(latex).until(_END)
    # the sign between the sides stands first on the right, where it would be taken for a prefix and lose its spaces
    content = Html(content.replace("<mo>", '<mo form="infix">', 1)) if side == "right" else content
    return tag("span", tag("math", tag("mrow", content), displaystyle="true"), class_=side)


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, latex: str):
        self.tokens = [t for t in _TOKEN.findall(latex) if not t.isspace()]
        self.place = 0

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else _END

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token == _END or expected not in (None, token):
            raise UnknownLatex(f"{expected or 'something'} is missing after {' '.join(self.tokens[: self.place])}")
        self.place += 1
        return token

    def until(self, *ends: str) -> Html:
        """Atoms up to one of these tokens, which is left where it is."""
        found = []
        while self.peek() not in ends:
            found.append(self.scripted())
        return Html("".join(found))

    def scripted(self) -> Html:
        base = self.atom()
        scripts: dict[str, Html] = {}
        while self.peek() in ("_", "^") and self.peek() not in scripts:
            kind = self.take()
            scripts[kind] = self.atom()
        if len(scripts) == 2:
            return tag("msubsup", base, scripts["_"], scripts["^"])
        if scripts:
            kind, script = scripts.popitem()
            return tag("msub" if kind == "_" else "msup", base, script)
        return base

    def group(self) -> Html:
        self.take("{")
        content = self.until("}", _END)
        self.take("}")
        return tag("mrow", content)

    def words(self) -> str:
        """The text between braces, as it stands (without the spaces that tell tokens apart)."""
        self.take("{")
        found = []
        while self.peek() != "}":
            found.append(self.take())
        self.take("}")
        return "".join(found)

    def atom(self) -> Html:
        if self.peek() == "{":
            return self.group()
        token = self.take()
        if token in (r"\mathrm", r"\operatorname"):
            return tag("mi", self.words(), mathvariant="normal")
        if token == r"\frac":
            return tag("mfrac", self.group(), self.group())
        if token.startswith(r"\text{"):
            return tag("mtext", token[6:-1])
        if token in _SYMBOLS:
            return tag("mi", _SYMBOLS[token])
        if token in _SPACES:
            return Html(f'<mspace width="{_SPACES[token]}"></mspace>')
        if token in (r"\left", r"\right"):
            return tag("mo", self.take())
        if token == r"\begin":
            return self.cases()
        if token[0].isdigit():
            return tag("mn", token)
        if token.isalpha() and len(token) == 1:
            return tag("mi", token)
        if token.startswith("\\") and token not in _SIGNS or token in "{}&_^":
            raise UnknownLatex(token)
        return Html(f"<mo>{escape(_SIGNS.get(token, token))}</mo>")

    def cases(self) -> Html:
        if self.words() != "cases":
            raise UnknownLatex("a block other than cases")
        rows = []
        while True:
            value = self.until("&", _END)
            self.take("&")
            rows.append(tag("mtr", tag("mtd", value), tag("mtd", self.until(r"\\", r"\end", _END))))
            if self.take() == r"\end":
                break
        if self.words() != "cases":
            raise UnknownLatex("a block other than cases")
        return tag("mrow", tag("mo", "{"), tag("mtable", *rows))
