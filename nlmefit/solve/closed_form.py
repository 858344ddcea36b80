"""Exact amounts over time in mammillary compartment models of one subject.

The central compartment alone eliminates and exchanges with up to two peripheral ones; an optional depot
empties into it by first-order absorption.  With A the amounts in [depot], central, peripheral 1 and 2,

    dA/dt = K A + input.

Every answer is a function g of K times a vector: exp(K t), its integral, (I - exp(K tau))^-1 or -K^-1.  With
lambda_i the disposition rates and M_i the projection on phase i (Sylvester's formula; in pharmacokinetics the
polyexponential of Wagner, 1975),

    g(K) A = [ g(-ka) A_depot ;
               sum_i M_i ( g(-lambda_i) A_rest + ka g[-ka, -lambda_i] A_depot e_central ) ]

where the divided difference g[a, b] = (g(a) - g(b)) / (a - b) is smooth where ka meets a disposition rate.
The disposition rates never meet: those back from the peripheral compartments separate them.  After doses into
depot or central compartment all terms of the central amount are positive: its tail stays relatively accurate.

Forward-mode derivatives in parameters and times are exact up to the third.

Wagner JG (1975) Fundamentals of Clinical Pharmacokinetics.  Drug Intelligence Publications.
Higham NJ (2008) Functions of Matrices, ch. 1 and 10.  SIAM.
McCurdy A, Ng KC, Parlett BN (1984) Accurate computation of divided differences of the exponential function.
    Mathematics of Computation 43:501-528.
"""

from collections.abc import Callable, Sequence
from math import factorial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Scalar = Float[Array, ""] | float
Amounts = Float[Array, "*#t n"]
Times = Float[Array, "*#t"]
Place = Any
"""Where ka, or the disposition rates, stand on the last axis of eigenvalues."""


class Disposition(NamedTuple):
    """A linear compartment model of n compartments, p of them (central and peripheral) in the disposition.

    The model has a depot, as compartment 0, when n = p + 1.
    """

    matrix: Float[Array, "n n"]  # K: dA/dt = matrix @ A
    rates: Float[Array, " n"]  # eigenvalues of -matrix: [ka], then disposition rates, fast to slow
    modes: Float[Array, "p p p"]  # modes[i] projects disposition amounts on the phase with the i-th such rate


def one_compartment(CL: Scalar, V: Scalar, ka: Scalar | None = None) -> Disposition:
    """Central volume V with clearance CL; a depot in front with absorption rate constant ka if given."""
    k = jnp.asarray(CL / V)
    return _with_depot(-k[None, None], k[None], jnp.ones((1, 1, 1)), ka)


def two_compartment(CL: Scalar, V1: Scalar, Q: Scalar, V2: Scalar, ka: Scalar | None = None) -> Disposition:
    """Clearance CL from V1, which exchanges with V2 by intercompartmental clearance Q.

    The rates solve x^2 - (k10 + k12 + k21) x + k10 k21 = 0; the discriminant is a sum of positive terms.
    """
    k10, k12, k21 = CL / V1, Q / V1, Q / V2
    root = jnp.sqrt((k10 + k12 - k21) ** 2 + 4 * k12 * k21)
    fast = (k10 + k12 + k21 + root) / 2
    rates = jnp.stack([fast, k10 * k21 / fast])
    matrix = jnp.array([[-(k10 + k12), k21], [k12, -k21]])
    modes = jnp.stack([_adjugate(matrix, fast) / -root, _adjugate(matrix, rates[1]) / root])
    return _with_depot(matrix, rates, modes, ka)


def three_compartment(
    CL: Scalar, V1: Scalar, Q2: Scalar, V2: Scalar, Q3: Scalar, V3: Scalar, ka: Scalar | None = None
) -> Disposition:
    """Clearance CL from V1, which exchanges with V2 by Q2 and with V3 by Q3.

    The rates are the roots of a cubic, see _three_rates.
    """
    k10, k12, k21, k13, k31 = CL / V1, Q2 / V1, Q2 / V2, Q3 / V1, Q3 / V3
    rates = _three_rates(k10, k12, k21, k13, k31)
    matrix = jnp.array([[-(k10 + k12 + k13), k21, k31], [k12, -k21, 0.0], [k13, 0.0, -k31]])
    a, b, c = rates
    gaps = (b - a) * (c - a), (a - b) * (c - b), (a - c) * (b - c)
    modes = jnp.stack([_adjugate(matrix, x) / gap for x, gap in zip(rates, gaps)])
    return _with_depot(matrix, rates, modes, ka)


class SpectralFunction(NamedTuple):
    """A function g at the eigenvalues of K (..., n), and its divided differences g[-ka, -lambda_i] by their places."""

    value: Array
    slope: Callable[[Place, Place], Array]


class Phases(NamedTuple):
    """How amounts are kept apart by phase and source, so that carrying them from dose to dose cancels nothing.

    Entry k decays with the eigenvalue at place phase[k]. Of a source in the disposition there is one entry per phase, what came
    from there; the depot's amount, if doses go there, is entry 0, and what left it adds to the central compartment's entries.
    """

    phase: tuple[int, ...]
    source: tuple[int, ...]

    @classmethod
    def of(cls, d: Disposition, only: int | None) -> "Phases":
        """For doses into compartment `only`, or into any."""
        n, central = d.rates.shape[0], d.rates.shape[0] - d.modes.shape[0]
        depot = central == 1 and only in (None, 0)
        sources = range(central, n) if only is None else [max(only, central)]
        pairs = [(0, 0)] * depot + [(i, k) for k in sources for i in range(central, n)]
        return cls(tuple(i for i, _ in pairs), tuple(k for _, k in pairs))

    def weights(self, d: Disposition, g: SpectralFunction) -> tuple[Array, Array | None]:
        """What g(K) makes of the entries: factors of their own (..., k), and of the depot's that add to them (None: no depot)."""
        central = d.rates.shape[0] - d.modes.shape[0]
        own = g.value[..., jnp.asarray(self.phase)]
        if self.source[0] >= central:
            return own, None
        slopes = d.rates[0] * g.slope((..., slice(0, 1)), (..., slice(1, None)))
        rest = jnp.zeros((*slopes.shape[:-1], len(self.source) - 1 - slopes.shape[-1]))
        return own, jnp.concatenate([jnp.zeros_like(slopes[..., :1]), slopes, rest], axis=-1)

    def amounts(self, d: Disposition, kept: Float[Array, "... k"], wanted: Sequence[int]) -> list[Array]:
        """The wanted compartments' amounts."""
        central = d.rates.shape[0] - d.modes.shape[0]
        results = []
        for place in wanted:
            terms = []
            for entry, (i, k) in enumerate(zip(self.phase, self.source, strict=True)):
                if place >= central and k >= central:
                    terms.append(d.modes[i - central, place - central, k - central] * kept[..., entry])
                elif place == k:
                    terms.append(kept[..., entry])
            results.append(sum(terms[1:], terms[0]) if terms else jnp.zeros(kept.shape[:-1]))
        return results


def carried(own: Array, fed: Array | None, kept: Array) -> Array:
    """What the weights of `Phases` make of the entries."""
    return own * kept if fed is None else own * kept + fed * kept[..., :1]


def propagate(d: Disposition, amounts: Amounts, dt: Times) -> Amounts:
    """Amounts a time dt later without input: exp(K dt) amounts."""
    return _apply(d, amounts, *exponential(d, dt))


def infuse(d: Disposition, rate: Amounts, dt: Times) -> Amounts:
    """Amounts a time dt after the start of a constant input into empty compartments: integral_0^dt exp(K s) ds rate."""
    return _apply(d, rate, *_integral(d, dt))


def dose_response(
    d: Disposition, given: Sequence[Array | None], duration: Times | None, elapsed: Times, wanted: Sequence[int]
) -> list[Float[Array, "*#t"]]:
    """The wanted compartments' amounts `elapsed` after doses began: boluses, or infusions where `duration` is above 0.

    `given` holds the whole dose by the compartment that it goes into, None for compartments without. With s the time inside
    the infusion of duration T and u the time after it, g(x) = exp(x u) (exp(x s) - 1) / (x T): one function of K rather than
    two in a row, its divided difference by Leibniz' rule g h[a, b] = g[a, b] h(b) + g(a) h[a, b].
    """
    if duration is None:
        return _combine(d, given, *exponential(d, elapsed), wanted)
    running = jnp.asarray(duration > 0)[..., None]
    inside = jnp.clip(elapsed, 0.0, duration)
    scale = 1 / jnp.where(running, jnp.asarray(duration)[..., None], 1.0)
    decay, build = exponential(d, elapsed - inside), _integral(d, inside)
    built = jnp.where(running, scale * build.value, 1.0)

    def slope(ka: Place, phases: Place) -> Array:
        bent = jnp.where(running, scale * build.slope(ka, phases), 0.0)
        return decay.slope(ka, phases) * built[phases] + decay.value[ka] * bent

    return _combine(d, given, decay.value * built, slope, wanted)


def exponential(d: Disposition, dt: Times) -> SpectralFunction:
    """g(x) = exp(x dt)."""
    dt = jnp.asarray(dt)[..., None]
    x = -d.rates * dt
    decay = jnp.exp(x)
    return SpectralFunction(decay, lambda ka, phases: dt * _slope(x[ka], x[phases], decay[ka], decay[phases]))


def repeated(d: Disposition, interval: Times) -> SpectralFunction:
    """g(x) = 1 / (1 - exp(x tau)): what doses at the interval tau come to. Its divided difference is exp's times g(a) g(b)."""
    tau = jnp.asarray(interval)[..., None]
    x = -d.rates * tau
    decay, kept = jnp.exp(x), -1 / jnp.expm1(x)

    def slope(ka: Place, phases: Place) -> Array:
        return tau * _slope(x[ka], x[phases], decay[ka], decay[phases]) * kept[ka] * kept[phases]

    return SpectralFunction(kept, slope)


def _integral(d: Disposition, dt: Times) -> SpectralFunction:
    """g(x) = (exp(x dt) - 1) / x, itself a divided difference with a point at 0."""
    dt = jnp.asarray(dt)[..., None]
    x = -d.rates * dt
    decay = jnp.exp(x)
    filled = _slope(x, 0.0, decay, 1.0)

    def slope(ka: Place, phases: Place) -> Array:
        inner = _slope(x[ka], x[phases], decay[ka], decay[phases])
        return dt**2 * _curvature(x[ka], x[phases], filled[ka], filled[phases], inner)

    return SpectralFunction(dt * filled, slope)


def steady_bolus(d: Disposition, dose: Amounts, interval: Times) -> Amounts:
    """Amounts just after a dose at steady state of doses at the interval tau: (I - exp(K tau))^-1 dose."""
    return _apply(d, dose, *repeated(d, interval))


def steady_infusion(d: Disposition, rate: Amounts, duration: Times, interval: Times) -> Amounts:
    """Amounts at steady state of repeated infusions, as one of them starts.

    Infusions longer than the interval tau overlap: with duration = m tau + rest, in each interval m of them
    run throughout and one stops after the rest.  Those that still run count with what they gave so far.

        A = (I - exp(K tau))^-1 (m infuse(tau) + exp(K (tau - rest)) infuse(rest))
    """
    whole = jnp.floor(jnp.asarray(duration) / interval)
    rest = duration - whole * interval
    stopped = propagate(d, infuse(d, rate, rest), interval - rest)
    return steady_bolus(d, whole[..., None] * infuse(d, rate, interval) + stopped, interval)


def steady_constant(d: Disposition, rate: Amounts) -> Amounts:
    """Amounts at steady state of a constant input that never stops: -K^-1 rate, so g(x) = -1 / x."""
    return _apply(d, rate, 1 / d.rates, lambda ka, phases: 1 / (d.rates[ka] * d.rates[phases]))


def _apply(d: Disposition, amounts, value, slope):
    """g(matrix) @ amounts, from value (..., n) = g at the eigenvalues and, with a depot, g[-ka, -lambda_i]."""
    amounts = jnp.asarray(amounts)
    parts = [amounts[..., j] for j in range(d.rates.shape[0])]
    return jnp.stack(jnp.broadcast_arrays(*_combine(d, parts, value, slope, range(len(parts)))), axis=-1)


def _combine(d: Disposition, parts, value, slope, wanted):
    """The wanted compartments of g(matrix) @ parts, where a part that is None is zero.

    g[-ka, -lambda_i] is slope(ka, phases), of the places of ka and of the disposition rates among the eigenvalues.
    Compartments stay apart until the end: sums over axes of length two or three would not fuse with the rest.
    """
    p, n = d.modes.shape[0], d.rates.shape[0]
    weights = [value[..., n - p + i] for i in range(p)]
    central = parts[n - p]
    fed = [None if central is None else weight * central for weight in weights]
    if n > p and parts[0] is not None:
        slopes = slope((..., slice(0, 1)), (..., slice(1, None)))
        entering = d.rates[0] * parts[0]
        absorbed = [entering * slopes[..., i] for i in range(p)]
        fed = [new if old is None else old + new for old, new in zip(fed, absorbed)]
    results = []
    for compartment in wanted:
        j = compartment - (n - p)
        if j < 0:
            terms = [] if parts[0] is None else [value[..., 0] * parts[0]]
        else:
            terms = [d.modes[i, j, 0] * share for i, share in enumerate(fed) if share is not None]
            for k, source in enumerate(parts[n - p + 1 :], 1):
                terms += [] if source is None else [weights[i] * (d.modes[i, j, k] * source) for i in range(p)]
        results.append(sum(terms[1:], terms[0]) if terms else jnp.zeros(value.shape[:-1]))
    return results


def _with_depot(matrix, rates, modes, ka) -> Disposition:
    """The model with a depot before the central compartment, unless ka is None."""
    if ka is None:
        return Disposition(matrix, rates, modes)
    p = rates.shape[0]
    ka = jnp.asarray(ka)
    drained = jnp.zeros((p + 1, 1)).at[:2, 0].set(jnp.stack([-ka, ka]))
    matrix = jnp.concatenate([drained, jnp.concatenate([jnp.zeros((1, p)), matrix])], axis=1)
    return Disposition(matrix, jnp.concatenate([ka[None], rates]), modes)


def _adjugate(matrix, x):
    """Adjugate of (-matrix - x I) for p = 2 or 3; over prod_{j != i} (x_j - x_i) the mode of x = x_i."""
    e = -matrix[0, 0] - x
    k12, k21 = matrix[1, 0], matrix[0, 1]
    s = -matrix[1, 1] - x
    if matrix.shape[0] == 2:
        return jnp.array([[s, k21], [k12, e]])
    k13, k31 = matrix[2, 0], matrix[0, 2]
    t = -matrix[2, 2] - x
    return jnp.array(
        [
            [s * t, k21 * t, k31 * s],
            [k12 * t, e * t - k13 * k31, k12 * k31],
            [k13 * s, k13 * k21, e * s - k12 * k21],
        ]
    )


def _three_rates(k10, k12, k21, k13, k31):
    """Disposition rates (3,) of the 3-compartment model, fast to slow.

    Vieta's trigonometric formula gives the largest root of x^3 - c2 x^2 + c1 x - c0, the quadratic that is
    left the other two.  Their derivatives would be singular where arccos and sqrt are, so the roots start as
    constants, and of the Newton steps that follow the last two carry the derivatives: an error of order h
    after none is of order h^4 after two, hence derivatives up to the third are exact.
    """
    constants = lax.stop_gradient((k10, k12, k21, k13, k31))
    l10, l12, l21, l13, l31 = constants
    c2 = l10 + l12 + l13 + l21 + l31
    c1 = l10 * (l21 + l31) + l21 * l31 + l12 * l31 + l13 * l21
    c0 = l10 * l21 * l31
    third = c2 / 3
    spread = jnp.sqrt(jnp.maximum(third**2 - c1 / 3, 0.0))
    cosine = (third**3 - c2 * c1 / 6 + c0 / 2) / jnp.maximum(spread**3, jnp.finfo(spread.dtype).tiny)
    large = third + 2 * spread * jnp.cos(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)) / 3)
    large = _newton(large, *constants)
    product = c0 / large
    total = (c1 - product) / large
    middle = (total + jnp.sqrt(jnp.maximum(total**2 - 4 * product, 0.0))) / 2
    rates = _newton(jnp.stack([large, middle, product / middle]), *constants)
    return _newton(_newton(rates, k10, k12, k21, k13, k31), k10, k12, k21, k13, k31)


def _newton(x, k10, k12, k21, k13, k31):
    """One Newton step to a root of (k10 - x) s t - x (k12 t + k13 s) with s = k21 - x and t = k31 - x.

    The characteristic polynomial in a form that keeps small roots and those near k21 and k31 accurate.
    """
    s, t = k21 - x, k31 - x
    mixed = k12 * t + k13 * s
    slope = x * (k12 + k13) - mixed - s * t - (k10 - x) * (s + t)
    return x - ((k10 - x) * s * t - x * mixed) / slope


def _slope(a, b, exp_a, exp_b):
    """Divided difference exp[a, b], given exp(a) and exp(b).

    exp((a + b) / 2) sinh(h) / h with h = (a - b) / 2; by its series, even in h, for points closer than 1.
    """
    gap = a - b
    near = jnp.abs(gap) < 1.0
    h2 = jnp.where(near, gap / 2, 0.0) ** 2
    series = _horner([1 / factorial(2 * k + 1) for k in range(8)], h2)
    return jnp.where(near, jnp.exp((a + b) / 2) * series, (exp_a - exp_b) / jnp.where(near, 1.0, gap))


def _curvature(a, b, slope_a, slope_b, slope_ab):
    """Divided difference exp[a, b, 0] for a, b <= 0, given exp[a, 0], exp[b, 0] and exp[a, b].

    The recursion divides by the widest gap, that of the lower point to 0.  Where this is below 1, the series
    sum_k h_k(a, b) / (k + 2)! of McCurdy et al. (1984); as h_k = (a + b) h_(k-1) - a b h_(k-2), summed by
    Clenshaw's backward recurrence.
    """
    lower_a = a < b
    lower = jnp.where(lower_a, a, b)
    near = lower > -1.0
    wide = (jnp.where(lower_a, slope_b, slope_a) - slope_ab) / jnp.where(near, 1.0, -lower)
    a, b = jnp.where(near, a, 0.0), jnp.where(near, b, 0.0)
    total, product = a + b, a * b
    now = before = 0.0
    for k in reversed(range(20)):
        now, before = 1 / factorial(k + 2) + total * now - product * before, now
    return jnp.where(near, now, wide)


def _horner(coefficients, x):
    """sum_k coefficients[k] x^k."""
    value = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value
