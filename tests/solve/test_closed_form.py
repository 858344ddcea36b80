"""Closed-form compartment models against arithmetic of 40 and more digits and against an ODE solver."""

from functools import cache

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from nlmefit.solve import closed_form as cf

jax.config.update("jax_enable_x64", True)

MODELS = {1: cf.one_compartment, 2: cf.two_compartment, 3: cf.three_compartment}
SHAPES = [(p, oral) for p in (1, 2, 3) for oral in (False, True)]
CL, V1, Q2, V2, Q3, V3 = 3.0, 30.0, 2.0, 50.0, 1.0, 90.0
TYPICAL = {1: (CL, V1), 2: (CL, V1, Q2, V2), 3: (CL, V1, Q2, V2, Q3, V3)}
KA = 1.1


@pytest.fixture(autouse=True)
def forty_digits():
    with mp.workdps(40):
        yield


def jitted(function):
    return jax.jit(function, compiler_options={"xla_cpu_use_fusion_emitters": False})


def build(p, oral, flows):
    """The model of the vector [clearances and volumes, ka if oral, ...]."""
    return MODELS[p](*[flows[i] for i in range(2 * p)], ka=flows[2 * p] if oral else None)


def operations(p, oral):
    """name -> function of [clearances and volumes, ka if oral, time] and amounts or rates."""
    functions = {"propagate": cf.propagate, "infuse": cf.infuse, "steady_bolus": cf.steady_bolus}
    return {name: lambda x, source, f=f: f(build(p, oral, x), source, x[-1]) for name, f in functions.items()} | {
        "steady_constant": lambda x, source: cf.steady_constant(build(p, oral, x), source)
    }


def exact_matrix(p, oral, flows):
    """dA/dt = K A written out from the flows between the compartments, in high precision."""
    flows = [mp.mpf(x) for x in flows]
    K, central = mp.zeros(p + oral), int(oral)
    K[central, central] -= flows[0] / flows[1]
    for j in range(1, p):
        Q, V = flows[2 * j], flows[2 * j + 1]
        K[central, central] -= Q / flows[1]
        K[central + j, central] += Q / flows[1]
        K[central, central + j] += Q / V
        K[central + j, central + j] -= Q / V
    if oral:
        K[0, 0] -= flows[2 * p]
        K[1, 0] += flows[2 * p]
    return K


def exact(name, p, oral, x, source):
    K, source, t = exact_matrix(p, oral, x), mp.matrix([mp.mpf(s) for s in source]), mp.mpf(x[-1])
    n = p + oral
    if name == "propagate":
        return mp.expm(K * t) * source
    if name == "steady_bolus":
        return mp.lu_solve(mp.eye(n) - mp.expm(K * t), source)
    if name == "steady_constant":
        return mp.lu_solve(K, -source)
    with_input = mp.zeros(n + 1)  # exp([[K, r], [0, 0]] t) has the integral of exp(K s) r in its last column
    with_input[:n, :n] = K * t
    with_input[:n, n] = source * t
    return mp.expm(with_input)[:n, n]


def relative_error(value, truth):
    """Largest error of a vector over the largest of its elements."""
    scale = max(abs(element) for element in truth)
    return float(max(abs(mp.mpf(float(v)) - element) for v, element in zip(value, truth)) / scale)


def random_model(rng, p):
    """Clearances and volumes, ka and time with micro-constants over almost six orders of magnitude."""
    micro = np.exp(rng.uniform(np.log(1e-4), np.log(50.0), 2 * p))
    V = np.exp(rng.uniform(-2, 4))
    peripheral = [x for k_out, k_back in micro[2:].reshape(-1, 2) for x in (k_out * V, k_out * V / k_back)]
    return [micro[0] * V, V, *peripheral], micro[1], np.exp(rng.uniform(np.log(1e-3), np.log(500.0)))


@pytest.mark.parametrize("p, oral", SHAPES)
def test_amounts_of_random_models_match_40_digit_matrix_exponentials(p, oral):
    """Without input also the central amount alone, relative to itself, however little of a dose is left."""
    rng = np.random.default_rng(10 * p + oral)
    functions = {name: jitted(f) for name, f in operations(p, oral).items()}
    for _ in range(35):
        flows, ka, t = random_model(rng, p)
        x = np.array([*flows, *([ka] if oral else []), t])
        source = rng.choice([rng.uniform(0.0, 1.0, p + oral), np.eye(p + oral)[0]])
        for name, function in functions.items():
            truth = exact(name, p, oral, x, source)
            value = function(x, source)
            # what is left is compared with what was there: everything may have been eliminated
            scale = max(source) / max(abs(a) for a in truth) if name == "propagate" else 1
            assert relative_error(value, truth) <= 1e-12 * scale, (name, x)
            if name == "propagate" and truth[int(oral)] > 1e-250:
                assert abs(mp.mpf(float(value[int(oral)])) / truth[int(oral)] - 1) <= 1e-10, x


@pytest.mark.parametrize("p, oral", SHAPES)
def test_rates_are_the_eigenvalues_and_modes_sum_to_identity(p, oral):
    d = build(p, oral, [*TYPICAL[p], KA])
    truth = np.sort(np.linalg.eigvals(d.matrix).real)
    np.testing.assert_allclose(np.sort(-d.rates), truth, rtol=1e-12)
    written_out = np.array(exact_matrix(p, oral, [*TYPICAL[p], KA]).tolist(), float)
    np.testing.assert_allclose(d.matrix, written_out, rtol=1e-14)
    np.testing.assert_allclose(d.modes.sum(0), np.eye(p), atol=1e-14)
    assert np.all(np.diff(d.rates[int(oral) :]) < 0)


def derivatives_0_to_3(function, at):
    """Value and three derivatives in one pass of nested dual numbers; compiling it would take longer."""

    def dual(f):
        return lambda e: jax.jvp(f, (e,), (jnp.ones(()),))

    nested = dual(dual(dual(function)))(jnp.asarray(at))
    return nested[0][0][0], nested[0][0][1], nested[0][1][1], nested[1][1][1]


def directional_derivatives(p, oral, name, x, direction, source):
    function, source = operations(p, oral)[name], jnp.asarray(source)
    return derivatives_0_to_3(lambda e: function(x + e * direction, source), 0.0)


def central_differences(function):
    """Derivatives 0 to 3 at 0 to order h^4 and more, h = 1e-8 at 60 digits."""
    with mp.workdps(60):
        h = mp.mpf(10) ** -8
        f0 = function(mp.mpf(0))
        (p1, m1), (p2, m2), (p3, m3) = [(function(s * h), function(-s * h)) for s in (1, 2, 3)]
        first = (45 * (p1 - m1) - 9 * (p2 - m2) + (p3 - m3)) / (60 * h)
        second = (16 * (p1 + m1) - (p2 + m2) - 30 * f0) / (12 * h**2)
        third = (8 * (p2 - m2) - 13 * (p1 - m1) - (p3 - m3)) / (8 * h**3)
        return f0, first, second, third


def exact_derivatives(name, p, oral, x, direction, source):
    """Derivatives 0 to 3 of the exact amounts along a direction."""
    x, direction = [mp.mpf(a) for a in x], [mp.mpf(a) for a in direction]

    def along(e):
        return exact(name, p, oral, [a + e * b for a, b in zip(x, direction)], source)

    return central_differences(along)


def disposition_rate(p, i):
    return float(build(p, False, TYPICAL[p]).rates[i])


GAPS = (0.0, 1e-12, 1e-6, 1e-1)


@cache
def coincident():
    """By the number of compartments: clearances, volumes and ka for which rates coincide, or nearly."""
    return {
        1: [[CL, V1, CL / V1 * (1 + gap)] for gap in GAPS],
        2: [[*TYPICAL[2], disposition_rate(2, i) * (1 + gap)] for i in range(2) for gap in (0.0, 1e-12, 1e-4)]
        + [[CL, V1, CL / 100, V1 / 100, KA]],  # k21 = k10
        3: [[*TYPICAL[3], disposition_rate(3, i)] for i in range(3)]
        + [[CL, V1, Q2, V2, Q2, V2 * (1 + gap), KA] for gap in (0.0, 1e-6)]  # k21 = k31
        + [[CL, V1, Q2, V2, Q2, V2, Q2 / V2]],  # ka = k21 = k31
    }


@pytest.mark.parametrize("name, t", [("propagate", 20.0), ("infuse", 0.3), ("steady_bolus", 8.0)])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_three_derivatives_where_rates_coincide(p, name, t):
    source = np.array([1.0, 0.7, 0.4, 0.2])[: p + 1]
    rng = np.random.default_rng(3)
    for flows in coincident()[p]:
        x = np.array([*flows, t])
        direction = x * rng.normal(size=x.size)
        values = directional_derivatives(p, True, name, x, direction, source)
        truths = exact_derivatives(name, p, True, x, direction, source)
        for value, truth, limit in zip(values, truths, (1e-13, 1e-11, 1e-10, 1e-9)):
            assert relative_error(value, truth) <= limit, (x, limit)


@pytest.mark.parametrize("t", [0.5, 1.0, 1.0 + 1e-12, 9.0, 11.0])
def test_three_derivatives_at_the_seams_of_the_series(t):
    """With ka = 1 and k = 0.1 the gaps of the divided differences pass 1 near these times."""
    x = np.array([3.0, 30.0, 1.0, t])
    direction = x * np.array([0.4, -0.7, 1.2, 0.9])
    for name in ("propagate", "infuse", "steady_bolus"):
        values = directional_derivatives(1, True, name, x, direction, [1.0, 0.3])
        for value, truth in zip(values, exact_derivatives(name, 1, True, x, direction, [1.0, 0.3])):
            assert relative_error(value, truth) <= 1e-12, name


def test_two_nearly_equal_slow_phases_lose_digits_of_derivatives_only():
    """k21 = k31 and flows of a hundredth of the clearance: rates 2 % apart, the hardest for derivatives."""
    x = np.array([CL, V1, CL / 100, V2, CL / 100, V2, 7.0])
    direction = x * np.array([0.4, -0.7, 1.2, 0.9, -0.3, 0.8, 0.5])
    for name in ("propagate", "infuse", "steady_bolus"):
        values = directional_derivatives(3, False, name, x, direction, [1.0, 0.3, 0.2])
        truths = exact_derivatives(name, 3, False, x, direction, [1.0, 0.3, 0.2])
        for value, truth, limit in zip(values, truths, (1e-13, 1e-11, 1e-9, 1e-6)):
            assert relative_error(value, truth) <= limit, name


@pytest.mark.parametrize("p, oral", [(1, False), (2, True), (3, True)])
def test_extreme_times_leave_values_and_derivatives_finite(p, oral):
    flows, source = [*TYPICAL[p], *([KA] if oral else [])], np.ones(p + oral)
    direction = np.ones(len(flows) + 1)
    for name in ("propagate", "infuse"):
        for t in (0.0, 1e4, 1e6):
            x = np.array([*flows, t])
            values = directional_derivatives(p, oral, name, x, direction, source)
            assert all(np.all(np.isfinite(value)) for value in values), (name, t)
            for value, truth in zip(values, exact_derivatives(name, p, oral, x, direction, source)):
                if max(abs(element) for element in truth) > 1e-290:
                    assert relative_error(value, truth) <= 1e-9, (name, t)
                else:
                    np.testing.assert_allclose(value, 0.0, atol=1e-280)
    model = build(p, oral, flows)
    np.testing.assert_allclose(cf.infuse(model, source, 1e6), cf.steady_constant(model, source), rtol=1e-11)
    np.testing.assert_allclose(cf.steady_bolus(model, source, 1e6), source, rtol=1e-11)


@pytest.mark.parametrize("p, oral", [(2, True), (3, True), (3, False)])
def test_infusions_and_doses_superpose_to_the_solution_of_the_differential_equation(p, oral):
    d = build(p, oral, [*TYPICAL[p], KA])
    n, K = p + oral, np.asarray(d.matrix)
    bolus, rate = np.zeros(n), np.zeros(n)
    bolus[0], rate[0], rate[-1] = 100.0, 20.0, 3.0
    duration, interval, end = 2.5, 12.0, 30.0

    def after(start, t):
        since = max(t - start, 0.0)
        running = min(since, duration)
        infused = cf.propagate(d, cf.infuse(d, rate, running), since - running)
        return infused + (cf.propagate(d, bolus, since) if t >= start else 0.0)

    amounts = np.zeros(n)
    for start, stop in ((0.0, interval), (interval, 2 * interval), (2 * interval, end)):
        amounts = amounts + bolus
        for a, b, input_rate in ((start, start + duration, rate), (start + duration, stop, 0.0 * rate)):
            solution = solve_ivp(lambda t, A: K @ A + input_rate, (a, b), amounts, "DOP853", rtol=1e-12, atol=1e-12)
            amounts = solution.y[:, -1]
    superposed = sum(after(start, end) for start in (0.0, interval, 2 * interval))
    np.testing.assert_allclose(superposed, amounts, rtol=1e-9)


@pytest.mark.parametrize("p, oral", SHAPES)
@pytest.mark.parametrize("duration", [1.0, 8.0, 20.0])
def test_steady_states_are_those_of_dosing_until_nothing_changes(p, oral, duration):
    d, interval = build(p, oral, [*TYPICAL[p], KA]), 8.0
    source = np.array([1.0, 0.5, 0.0, 0.3])[: p + oral]
    starts = interval * np.arange(1, 1500)  # how long ago
    boluses = source + jitted(cf.propagate)(d, source, starts).sum(0)
    np.testing.assert_allclose(cf.steady_bolus(d, source, interval), boluses, rtol=1e-11)
    running = np.minimum(starts, duration)
    infused = jitted(cf.infuse)(d, source, running)
    infusions = jitted(cf.propagate)(d, infused, starts - running).sum(0)
    np.testing.assert_allclose(cf.steady_infusion(d, source, duration, interval), infusions, rtol=1e-11)


@pytest.mark.parametrize("duration", [3.0, 20.0])
def test_steady_infusion_differentiates_with_respect_to_duration_and_interval(duration):
    """Against the sum over earlier infusions, a geometric series once they have stopped, in 60 digits."""
    flows, rate, interval = [CL, V1, KA], [1.0, 0.5], 8.0
    d = build(1, True, flows)

    def truth(e):
        T, tau = duration + mp.mpf("0.7") * e, interval - mp.mpf("0.2") * e
        whole = int(T / tau)
        running = mp.zeros(2, 1)
        for k in range(1, 1 + whole):
            running += exact("infuse", 1, True, [*flows, k * tau], rate)
        infused = exact("infuse", 1, True, [*flows, T], rate)
        one_stopped = exact("propagate", 1, True, [*flows, (whole + 1) * tau - T], infused)
        return running + exact("steady_bolus", 1, True, [*flows, tau], one_stopped)

    def amounts(e):
        return cf.steady_infusion(d, jnp.array(rate), duration + 0.7 * e, interval - 0.2 * e)

    for value, expected in zip(derivatives_0_to_3(amounts, 0.0), central_differences(truth)):
        assert relative_error(value, expected) <= 1e-12


def test_zero_order_absorption_differentiates_with_respect_to_its_duration():
    """A dose released at a constant rate over D hours, at times during and after the release."""

    def central(D, t):
        d = cf.one_compartment(CL, V1)
        running = jnp.where(t < D, t, D)
        return cf.propagate(d, cf.infuse(d, jnp.array([1.0 / D]), running), t - running)[0]

    def truth(D, t):
        k = mp.mpf(CL) / V1
        return (mp.exp(-k * mp.mpf(max(t - D, 0))) - mp.exp(-k * t)) / (k * D)

    for t in (1.0, 6.0):
        for order, value in enumerate(derivatives_0_to_3(lambda D: central(D, t), 3.0)):
            expected = float(mp.diff(lambda D: truth(D, mp.mpf(t)), 3, order))
            np.testing.assert_allclose(value, expected, rtol=1e-11)


@pytest.mark.parametrize("p, oral", [(1, False), (3, True)])
def test_shapes_broadcast_like_one_subject_at_a_time(p, oral):
    d = build(p, oral, [*TYPICAL[p], KA])
    n = p + oral
    amounts, times = np.random.default_rng(0).uniform(size=(5, n)), np.linspace(0, 30, 7)
    for function in (cf.propagate, cf.infuse):
        function = jitted(function)
        table = function(d, amounts, times[:, None])
        assert table.shape == (7, 5, n)
        np.testing.assert_allclose(table[3, 2], function(d, amounts[2], times[3]), rtol=1e-13)
        np.testing.assert_allclose(table[:, 0], function(d, amounts[0], times), rtol=1e-13)
        np.testing.assert_allclose(table[3], function(d, amounts, times[3]), rtol=1e-13)
    assert cf.steady_constant(d, amounts).shape == (5, n)


def test_one_compartment_bolus_is_one_exponential():
    def amount(CL, V, t):
        return cf.propagate(cf.one_compartment(CL, V), jnp.array([1.0]), t)[0]

    compiled = jax.jit(amount).lower(CL, V1, 2.0).compile().as_text()
    assert compiled.count(" exponential(") == 1
    assert " dot(" not in compiled and " reduce(" not in compiled
