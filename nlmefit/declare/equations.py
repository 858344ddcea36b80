"""A model as equations, in text and LaTeX, read off the traced computation.

What is printed is what is computed: the model's own methods are traced by JAX and the resulting expressions rendered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlmefit.core.backend import check_process
from nlmefit.declare.covariates import Category, code
from nlmefit.declare.declared import DeclaredModel
from nlmefit.declare.namespace import Namespace
from nlmefit.declare.network import CALL
from nlmefit.declare.variant import variant
from nlmefit.declare.written import Written


@dataclass(frozen=True)
class Expression:
    """An operation on expressions; a leaf has no arguments and is a name or a number."""

    head: str
    arguments: tuple["Expression", ...] = ()

    def number(self) -> float | None:
        try:
            return None if self.arguments else float(self.head)
        except ValueError:
            return None


_INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2), "pow": ("^", 4)}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
_TRANSPARENT = {"convert_element_type", "broadcast_in_dim", "copy", "reshape", "squeeze", "stop_gradient"}
_INLINED = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}


def expressions(function: Callable[..., Mapping[str, Any]], names: list[str]) -> dict[str, Expression]:
    """The values that `function(**{name: scalar})` returns, as expressions in the names."""
    found: list[str] = []

    def ordered(*values: Any) -> list[Any]:
        result = function(**dict(zip(names, values, strict=True)))
        found.extend(result)
        return [jnp.asarray(v, float) for v in result.values()]

    jaxpr = jax.make_jaxpr(ordered)(*(jnp.zeros(()) for _ in names))
    outputs = _walk(jaxpr.jaxpr, jaxpr.consts, [Expression(name) for name in names])
    return dict(zip(found, outputs, strict=True))


def _walk(jaxpr: Any, consts: Any, inputs: list[Expression]) -> list[Expression]:
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {v: _constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def read(v: Any) -> Expression:
        return _constant(v.val) if hasattr(v, "val") else known[v]

    for equation in jaxpr.eqns:
        arguments = [read(v) for v in equation.invars]
        known.update(zip(equation.outvars, _apply(equation, arguments), strict=False))
    return [read(v) for v in jaxpr.outvars]


def _apply(equation: Any, arguments: list[Expression]) -> list[Expression]:
    name = equation.primitive.name
    if str(equation.params.get("name", "")).startswith(CALL):
        return _network(equation, arguments)
    if name in _INLINED:
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        return _walk(inner.jaxpr, inner.consts, arguments)
    if name in _TRANSPARENT:
        return [arguments[0]]
    if name == "integer_pow":
        return [_simplified("pow", (arguments[0], Expression(str(equation.params["y"]))))]
    if name == "square":
        return [_simplified("pow", (arguments[0], Expression("2")))]
    return [_simplified(name, tuple(arguments))]


def _network(equation: Any, arguments: list[Expression]) -> list[Expression]:
    """A network's call by its name, on its inputs: f(x), or f_1(x), f_2(x), ... of several outputs."""
    name, outputs = equation.params["name"].removeprefix(CALL), len(equation.outvars)
    inputs = tuple(a for a in arguments if not (a.head.startswith(f"{name}_") and not a.arguments))
    return [Expression(name if outputs == 1 else f"{name}_{k}", inputs) for k in range(1, outputs + 1)]


def _simplified(head: str, arguments: tuple[Expression, ...]) -> Expression:
    """Without the zeros and ones that code writes and people do not."""
    values = [a.number() for a in arguments]
    if head == "add" and 0.0 in values:
        return arguments[1 - values.index(0.0)]
    if head == "mul" and 0.0 in values:
        return Expression("0")
    if head == "mul" and 1.0 in values:
        return arguments[1 - values.index(1.0)]
    if head == "sub" and values[1] == 0.0 or head in ("div", "pow") and values[1] == 1.0:
        return arguments[0]
    if head == "exp" and values[0] == 0.0:
        return Expression("1")
    return _signed(head, arguments)


def _signed(head: str, arguments: tuple[Expression, ...]) -> Expression:
    """With minus signs moved outward: (-a)/b as -(a/b), a + -b as a - b."""
    first, last = arguments[0], arguments[-1]
    if head in ("mul", "div") and first.head == "neg":
        return Expression("neg", (_signed(head, (first.arguments[0], last)),))
    if head in ("add", "sub") and last.head == "neg":
        return _signed("sub" if head == "add" else "add", (first, last.arguments[0]))
    if head in ("add", "sub") and (last.number() or 0.0) < 0:
        return Expression("sub" if head == "add" else "add", (first, Expression(last.head[1:])))
    return Expression(head, arguments)


def _constant(value: Any) -> Expression:
    number = float(np.asarray(value).reshape(-1)[0])
    return Expression(f"{number:.15g}" if number.is_integer() and abs(number) < 1e15 else f"{number:g}")


def _worded(e: Expression, words: Mapping[str, str]) -> Expression:
    """The expression with the codes of text levels as the texts that they stand for."""
    if not e.arguments:
        return Expression(words.get(e.head, e.head))
    return Expression(e.head, tuple(_worded(a, words) for a in e.arguments))


def render(e: Expression, symbol: Callable[[str], str], latex: bool = False, outer: int = 0) -> str:
    """The expression as text; `outer` is the binding strength of what surrounds it."""

    def inner(a: Expression, strength: int = 0) -> str:
        return render(a, symbol, latex, strength)

    if not e.arguments:
        return e.head if e.number() is not None else symbol(e.head)
    if e.head == "div" and latex:
        return rf"\frac{{{inner(e.arguments[0])}}}{{{inner(e.arguments[1])}}}"
    if e.head in _INFIX:
        return _infix(e, inner, latex, outer)
    if e.head == "neg":
        text = f"-{inner(e.arguments[0], 2)}"
        return f"({text})" if outer > 2 else text
    if e.head in _COMPARE:
        return f"[{inner(e.arguments[0])} {_COMPARE[e.head]} {inner(e.arguments[1])}]"
    if e.head == "select_n":
        condition, otherwise, then = e.arguments
        if latex:
            return (
                rf"\begin{{cases}}{inner(then)} & {inner(condition)}\\{inner(otherwise)} & "
                rf"\text{{otherwise}}\end{{cases}}"
            )
        return f"({inner(then)} if {inner(condition)} else {inner(otherwise)})"
    body = ", ".join(inner(a) for a in e.arguments)
    if latex and e.head == "exp":
        return f"e^{{{body}}}"
    return rf"\operatorname{{{e.head}}}\left({body}\right)" if latex else f"{e.head}({body})"


def _infix(e: Expression, inner: Callable[..., str], latex: bool, outer: int) -> str:
    sign, strength = _INFIX[e.head]
    a, b = e.arguments
    if e.head == "pow":
        text = f"{inner(a, 5)}^{{{inner(b)}}}" if latex else f"{inner(a, 5)}^{inner(b, 5)}"
        return f"({text})" if outer > 4 else text
    right = strength + (e.head in ("sub", "div"))
    if e.head == "mul":
        times = r" \, " if latex else "·"
        text = f"{inner(a, strength)}{times}{inner(b, strength + (b.head == 'neg'))}"
    else:
        text = f"{inner(a, strength)} {sign} {inner(b, right)}" if sign in "+-" else f"{inner(a, strength)}/{inner(b, right)}"
    return f"({text})" if outer > strength else text


def _sections(model: DeclaredModel) -> dict[str, dict[str, Expression]]:
    """Individual parameters, derivatives, predictions and residual variances, as expressions."""
    check_process()
    spec = model.specification
    own = {name: _effect(spec, name) for name in spec.etas}
    etas = [*own.values(), *(f"kappa_{name}" for name in spec.occasion_effects)]
    columns = list(model.covariates)

    def individual(**v: Any) -> Mapping[str, Any]:
        eta = {name: sum(v[n] for n in (own.get(name), f"kappa_{name}") if n in v) for name in spec.effects}
        return model.parameters_of(v, eta, Namespace({c: v[c] for c in columns}, "covariate"))

    population = [name for name, p in model.population().items() if p.kind not in ("omega", "flow")]
    parameters = expressions(individual, [*population, *etas, *columns])
    words = {_constant(code(level)).head: f'"{level}"' for level in spec.text_levels}
    parameters = {name: _worded(e, words) for name, e in parameters.items()}
    inside = [f"A_{name}" for name in spec.compartments]
    names = ["t", *inside, *dict.fromkeys([*parameters, *columns])]

    def amounts(v: Mapping[str, Any]) -> dict[str, Any]:
        return {name: v[f"A_{name}"] for name in spec.compartments}

    sections = {"individual": {name: e for name, e in parameters.items() if name not in spec.weights}}
    if spec.dynamics is not None:
        dynamics = spec.dynamics
        sections["dynamics"] = expressions(lambda **v: dynamics.derivatives(v["t"], amounts(v), v), names)
        sections["initial"] = expressions(lambda **v: model.initial_of(v), names[1 + len(inside) :])
        sections["doses"] = expressions(lambda **v: _doses(model, v), names[1 + len(inside) :])
    sections["distributions"] = {}

    def predicted(**v: Any) -> Mapping[str, Any]:
        p = {name: v[name] for name in dict.fromkeys([*parameters, *columns])}
        seen = model.predictions(v["t"], amounts(v), p)
        sections["distributions"] = {n: Expression(type(s).__name__) for n, s in seen.items() if hasattr(s, "log_prob")}
        return {n: _mean(s) for n, s in seen.items()}

    sections["predictions"] = expressions(predicted, names)
    for endpoint, residual in spec.residuals.items():
        parts = {part: f"{endpoint}_{part}" for part in residual.parameters()}

        def variance(residual: Any = residual, parts: dict[str, str] = parts, **v: Any) -> Mapping[str, Any]:
            return {"": residual.variance(v["f"], {part: v[name] for part, name in parts.items()})}

        sections[f"variance {endpoint}"] = expressions(variance, ["f", *parts.values()])
    return sections


def _effect(spec: Any, name: str) -> str:
    """What stands for a subject's random effect: eta, or the flow of it (and of those before it)."""
    if name not in spec.scores:
        return f"eta_{name}"
    return f"omega_{name}·T_{name}({', '.join(f'eta_{n}' for n in (*spec.flow.before(name), name))})"


def _doses(model: DeclaredModel, p: Mapping[str, Any]) -> dict[str, Any]:
    """What is modelled of the doses: "lag into central" and the like."""
    dynamics = model.specification.dynamics
    given: dict[str, Any] = {}
    for place, own_routes in ({} if dynamics is None else dynamics.routes(p)).items():
        for number, route in enumerate(own_routes, 1):
            own = f"{place}, route {number} into {route.into}" if len(own_routes) > 1 or route.into != place else place
            for name in ("share", "lag", "duration"):
                if getattr(route, name) is not None:
                    given[f"{name} of doses into {own}" if own != place else f"{name} into {own}"] = getattr(route, name)
            if route.transit is not None:
                given[f"transit compartments into {own}"], given[f"transit rate into {own}"] = route.transit
    for place, dosing in model.dosing_of(p).items():
        given |= {f"{name} into {place}": value for name, value in vars(dosing).items() if value is not None}
    return given


def _mean(predicted: Any) -> Any:
    """A prediction as it is, a distribution's mean; NaN of a distribution that knows none."""
    if not hasattr(predicted, "log_prob"):
        return predicted
    try:
        return predicted.mean
    except NotImplementedError:
        return jnp.nan


def text(model: DeclaredModel) -> str:
    """The model as equations, in plain text."""
    spec, sections = model.specification, _sections(model)

    def lines(found: Mapping[str, Expression], left: str) -> list[str]:
        width = max((len(left.format(n)) for n in found), default=0)
        return [f"  {left.format(n):{width}s} = {render(e, str)}" for n, e in found.items()]

    head = (type(model).__doc__ or "").strip().split("\n")[0]
    title = " ".join(filter(None, [type(model).__name__, variant(model)])) + (f": {head}" if head else "")
    result = [title, "", "individual parameters", *lines(sections["individual"], "{}_i")]
    if spec.effects:
        result += ["", "random effects", *_random_effects(model)]
    if spec.networks:
        result += ["", "networks", *(f"  {name}: {network.described(name)}" for name, network in spec.networks.items())]
    if spec.dynamics is not None:
        result += ["", f"dynamics ({_title(spec.dynamics)})", *lines(sections["dynamics"], "dA_{}/dt")]
        if sections["initial"]:
            result += ["", "initial amounts", *lines(sections["initial"], "A_{}(0)")]
        if sections["doses"]:
            result += ["", "doses", *lines(sections["doses"], "{}")]
    result += ["", "observations"]
    for endpoint in model.outputs:
        f = render(sections["predictions"][endpoint], str)
        if endpoint not in model.endpoints:
            result.append(f"  {endpoint} = {f}  (a prediction only)")
            continue
        if f"variance {endpoint}" in sections:
            variance = render(sections[f"variance {endpoint}"][""], str)
            result.append(f"  {endpoint} = f + eps,  f = {f},  Var(eps) = {variance}")
        else:
            result.append(f"  {endpoint} ~ {sections['distributions'][endpoint].head}" + (f", mean {f}" if f != "nan" else ""))
    result += ["", "values"]
    shown = {name: p for name, p in model.population().items() if p.kind != "network"}
    width = max(map(len, shown))
    for name, p in shown.items():
        result.append(f"  {name:{width}s} = {p.value:.6g}{' ' + p.unit if p.unit else ''}{' (fixed)' if p.fixed else ''}")
    return "\n".join(result)


def _title(dynamics: Any) -> str:
    absorption = getattr(dynamics, "absorption", None)
    name = repr(dynamics) if isinstance(dynamics, Written) else type(dynamics).__name__
    return name + (f", {absorption} absorption" if absorption else "")


def _random_effects(model: DeclaredModel) -> list[str]:
    spec = model.specification
    blocked = {name for block in spec.blocks for name in block}
    result = [f"  eta_{n} ~ N(0, {1 if n in spec.scores else f'omega_{n}^2'})" for n in spec.etas if n not in blocked]
    result += [
        f"  {name}_i·exp(beta_{name}_{e.column}_LEVEL) for each level of {e.column} in the data but {e.reference!r}"
        for name, parameter in spec.individuals.items()
        for e in parameter.covariates
        if isinstance(e, Category) and not e.starts
    ]
    result += [f"  T_{n}: a flow, of mean 0 and variance 1" for n in spec.scores]
    result += [f"  kappa_{name} ~ N(0, gamma_{name}^2), new on each {spec.occasion}" for name in spec.occasion_effects]
    for block in spec.blocks:
        etas = ", ".join(f"eta_{name}" for name in block)
        sds = ", ".join("1" if name in spec.scores else f"omega_{name}" for name in block)
        correlations = ", ".join(f"corr_{a}_{b}" for a, b in combinations(block, 2))
        result.append(f"  ({etas}) ~ N(0, Omega),  sds {sds},  correlations {correlations}")
    return result


_GREEK = {"eta", "kappa", "omega", "beta", "sigma", "theta", "gamma"}


def _latex_symbol(name: str) -> str:
    """What follows the first underscore is a subscript; one letter is italic, a word upright. A flow is a product of such."""
    scale, _, flow = name.partition("·")
    if flow:
        function, _, etas = flow.rstrip(")").partition("(")
        return (
            rf"{_latex_symbol(scale)} \, {_latex_symbol(function)}({', '.join(_latex_symbol(eta) for eta in etas.split(', '))})"
        )
    if name.startswith('"'):
        return rf"\text{{{name}}}"
    head, _, rest = name.partition("_")
    if head in _GREEK and rest:
        symbol = rf"\{head}"
    else:
        symbol = head if len(head) == 1 else rf"\mathrm{{{head}}}"
    return symbol + (rf"_{{\mathrm{{{rest.replace('_', ',')}}}}}" if rest else "")


def latex(model: DeclaredModel) -> str:
    """The model as equations, in LaTeX (an `aligned` block)."""
    spec, sections = model.specification, _sections(model)

    def show(e: Expression, own: Mapping[str, str] = {}) -> str:
        return render(e, lambda name: own.get(name) or _latex_symbol(name), latex=True)

    rows = [rf"{{{_latex_symbol(n)}}}_i &= {show(e)}" for n, e in sections["individual"].items()]
    blocked = {name for block in spec.blocks for name in block}
    variances = {n: "1" if n in spec.scores else f"{_latex_symbol('omega_' + n)}^2" for n in spec.etas}
    rows += [rf"{_latex_symbol('eta_' + n)} &\sim N(0, {variances[n]})" for n in spec.etas if n not in blocked]
    rows += [rf"{_latex_symbol('kappa_' + n)} &\sim N(0, {_latex_symbol('gamma_' + n)}^2)" for n in spec.occasion_effects]
    for block in spec.blocks:
        etas = ", ".join(_latex_symbol(f"eta_{n}") for n in block)
        rows.append(rf"({etas}) &\sim N(0, \Omega_{{\mathrm{{{','.join(block)}}}}})")
    rows += [rf"\frac{{d{_latex_symbol('A_' + n)}}}{{dt}} &= {show(e)}" for n, e in sections.get("dynamics", {}).items()]
    rows += [rf"{_latex_symbol('A_' + n)}(0) &= {show(e)}" for n, e in sections.get("initial", {}).items()]
    for name, e in sections.get("doses", {}).items():
        rows.append(rf"\text{{{name}}} &= {show(e)}")
    for endpoint in model.outputs:
        rows += _latex_endpoint(sections, endpoint, show)
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _latex_endpoint(sections: Mapping[str, Mapping[str, Expression]], endpoint: str, show: Callable[..., str]) -> list[str]:
    """The prediction and the distribution of one endpoint, or the distribution that `observe` returned."""
    symbol, prediction = _latex_symbol(endpoint), show(sections["predictions"][endpoint])
    if endpoint in sections["distributions"]:
        mean = "" if prediction == "nan" else rf", \quad \mathrm{{E}}({symbol}) = {prediction}"
        return [rf"{symbol} &\sim \mathrm{{{sections['distributions'][endpoint].head}}}{mean}"]
    if f"variance {endpoint}" not in sections:  # a prediction only
        return [rf"{symbol} &= {prediction}"]
    f = rf"f_{{\mathrm{{{endpoint.replace('_', ',')}}}}}"
    variance = show(sections[f"variance {endpoint}"][""], {"f": f})
    return [rf"{f} &= {prediction}", rf"{symbol} &\sim N\left({f}, {variance}\right)"]
