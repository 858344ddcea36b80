"""Flow matching: its target and optimum (G6, G7), couplings (G8, G9), learned couplings (G10, G11), reflow (G12), refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from scipy import integrate
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.rows import Samples
from nlmefit.generative.training import train
from nlmefit.generative.transport import couplings

MEAN, SD = 1.5, 0.4
FAST = gen.Training(steps=1500, batch=256, rate=1e-2, average=0.99, precision="float32")


def marginal_field(x, t, mean=MEAN, sd=SD):
    """E[z - x | x_t] of independent x ~ N(mean, sd^2), z ~ N(0, 1)."""
    return -mean + (t - (1 - t) * sd**2) / ((1 - t) ** 2 * sd**2 + t**2) * (x - (1 - t) * mean)


@pytest.fixture(scope="module")
def normal_data():
    return MEAN + SD * np.random.default_rng(0).normal(size=(20_000, 1))


@pytest.fixture(scope="module")
def fit(normal_data):
    model = gen.CNF(gen.MLP(32, 2), solver=gen.RungeKutta(20), standardize=False)
    return nm.fit(model, normal_data, gen.FlowMatching(training=FAST), progress=False)


def test_g6_the_field_of_normal_data():
    """Integrated from t = 1 to 0 the closed form maps z to mean + sd z @2e-11."""
    z = np.array([-2.0, -0.5, 0.0, 1.0, 2.2])
    x = gen.Adaptive(1e-13).solve(lambda t, x, _: marginal_field(x, t), jnp.asarray(z), None, 1.0, 0.0)
    np.testing.assert_allclose(x, MEAN + SD * z, atol=2e-11)


def test_g6_training_finds_it(fit):
    """Within 0.12 over the bulk of the data at each time; samples and exact densities are those of N(1.5, 0.4^2)."""
    for t in (0.1, 0.5, 0.9):
        spread = np.sqrt((1 - t) ** 2 * SD**2 + t**2)
        x = (1 - t) * MEAN + spread * np.linspace(-1.5, 1.5, 7)[:, None]
        np.testing.assert_allclose(fit.model.velocity_at(x, t), marginal_field(x, t), atol=0.12)
    drawn = fit.model.sample(4000, key=1)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [MEAN, SD], atol=0.03)
    x = np.linspace(0.9, 2.1, 5)
    exact = -0.5 * ((x - MEAN) / SD) ** 2 - np.log(SD * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(fit.model.log_prob(x), exact, atol=0.05)
    assert str(fit).splitlines()[0] == "CNF by flow matching, Independent coupling"


def test_g7_conditional_and_marginal_targets_have_the_same_normal_equations():
    """For v = w' phi(x_t), E[phi (z - x)] = E[phi E(z - x | x_t)] @1e-10, by exact moments (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / np.sqrt(2 * np.pi)
    for t in (0.2, 0.7):
        e, z = np.meshgrid(nodes, nodes, indexing="ij")
        both = weights[:, None] * weights
        x = MEAN + SD * e
        at = (1 - t) * x + t * z
        for feature in (np.ones_like(at), at, at**2, at**3):
            ours, theirs = np.sum(both * feature * (z - x)), np.sum(both * feature * marginal_field(at, t))
            np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_g8_path_energies():
    """Independent coupling: energy 2.78134 against W_2^2 = 2.61, NPE 0.0656 @1e-3; optimal transport: NPE 0 and no residual."""
    z = np.random.default_rng(0).normal(size=20_000)
    z = (np.sort(z) - z.mean()) / z.std()
    times = np.linspace(1, 0, 401)

    def energy(t):  # the flow is affine: x_t = (1 - t) mean + sqrt(var_t) z
        spread = np.sqrt((1 - t) ** 2 * SD**2 + t**2)
        return marginal_field((1 - t) * MEAN + spread * z, t)

    value = gen.transport.path_energy(np.stack([energy(t) for t in times]), times)
    np.testing.assert_allclose(value, 2.78134, atol=1e-3)
    np.testing.assert_allclose(gen.transport.normalized_path_energy(value, 2.61), 0.0656, atol=5e-4)
    straight = np.stack([z - (MEAN + SD * z)] * 3)  # z - x = x(1) - x(0) at all times
    np.testing.assert_allclose(gen.transport.path_energy(straight, [0, 0.5, 1]), MEAN**2 + (1 - SD) ** 2, rtol=1e-9)


@pytest.mark.optimized
def test_g8_optimal_transport_makes_straighter_paths(normal_data):
    """The bend of trained flows: less by a factor of 5 or more than of independent pairs."""
    X = np.random.default_rng(1).normal(size=(3000, 2)) * 0.3 + np.random.default_rng(2).choice([-2.0, 2.0], (3000, 2))
    Z = np.random.default_rng(3).normal(size=(500, 2))
    bends = []
    for coupling in (gen.Independent(), gen.OptimalTransport(500, pairs=6000)):
        training = gen.Training(steps=1200, batch=256, rate=5e-3, precision="float32")
        model = gen.VelocityField(np.random.default_rng(4).normal(size=(5000, 2)), gen.MLP(32, 2), solver=gen.RungeKutta(20))
        fit = nm.fit(model, X, gen.FlowMatching(coupling=coupling, training=training), progress=False)
        bends.append(gen.straightness(fit.model, Z).bend)
    assert 0 <= bends[1] < bends[0] / 5


@pytest.mark.parametrize("size", [64, 400])
def test_g9_pairs_of_a_minibatch(size):
    """Optimal by linear programming too (POT's emd) @1e-9; each row of data and each draw is used once."""
    X = np.random.default_rng(0).normal(2.0, 1.0, (size, 2))
    source = np.random.default_rng(1).normal(size=(5 * size, 2))
    data = Samples.of(X)
    model = gen.VelocityField(source, gen.MLP(4, 1)).built(data, jax.random.key(0))
    coupling = gen.OptimalTransport(size, pairs=2 * size)
    rows = coupling.rows(model, data, jax.random.key(1))
    assert rows.x.shape == (2 * size, 4)
    for part in (rows.x[:size], rows.x[size:]):
        np.testing.assert_array_equal(np.sort(part[:, 0]), np.sort(X[:, 0]))
        u, z = np.asarray(model.dynamics.inner(part[:, :2])), part[:, 2:]
        cost = ot.dist(u, z)
        np.testing.assert_allclose(np.mean(np.sum((u - z) ** 2, axis=1)), ot.emd2([], [], cost), rtol=1e-9)
    drawn = np.asarray(model.dynamics.outer(rows.x[:, 2:]))
    assert np.abs(drawn[:, None, 0] - source[:, 0]).min(axis=1).max() < 1e-12  # rows of the source


def test_g9_conditions_keep_the_source_independent_of_them():
    """Classes far apart in x: without the conditions' weight each class would have one side of the source."""
    rng = np.random.default_rng(0)
    c = rng.integers(0, 2, 1000).astype(float)
    data = Samples.of((np.column_stack([6 * c, 0 * c]) + rng.normal(size=(1000, 2)), c))
    model = gen.CNF(gen.MLP(4, 1)).built(data, jax.random.key(0))
    gaps = []
    for weight in (0.0, 1000.0):
        rows = gen.OptimalTransport(1000, 1000, condition_weight=weight).rows(model, data, jax.random.key(1))
        z = rows.x[:, 2]
        gaps.append(z[rows.given[:, 0] == 1].mean() - z[rows.given[:, 0] == 0].mean())
    assert gaps[0] > 1 and abs(gaps[1]) < 0.2


def test_conditional_flows_follow_what_is_given():
    """x | c ~ N(2 c, 0.5^2), c in {-1, 1}, by a coupling that heeds c."""
    rng = np.random.default_rng(0)
    c = rng.choice([-1.0, 1.0], 2000)
    X = (2 * c + 0.5 * rng.normal(size=2000))[:, None]
    training = gen.Training(steps=600, batch=128, rate=1e-2, precision="float32")
    method = gen.FlowMatching(gen.OptimalTransport(250, pairs=4000), training)
    fit = nm.fit(gen.CNF(network=gen.MLP(16, 2), solver=gen.RungeKutta(10)), (X, c), method, progress=False)
    for value in (-1.0, 1.0):
        drawn = fit.model.sample(2000, given=value, key=1)
        np.testing.assert_allclose([drawn.mean(), drawn.std()], [2 * value, 0.5], atol=0.1)
    with pytest.raises(nm.DataError, match="this model is conditional"):
        fit.model.sample(3)


def test_g10_the_bound_is_the_regression():
    """sum_k log N(x_{k+1}; x_k + D v, sigma^2 D) = -E|u - v|^2 / (2 sigma^2) + constant, exactly for each number of steps."""
    rng = np.random.default_rng(0)
    z, x, sigma = rng.normal(size=50_000), MEAN + SD * rng.normal(size=50_000), 0.7

    def field(at, t):
        return 0.4 - 0.2 * at * t

    for steps in (4, 16, 64):
        length, total, regression = 1 / steps, 0.0, 0.0
        for k in range(steps):
            t = k * length
            at, later = x + t * (z - x), x + (t + length) * (z - x)
            gap = later - at - length * field(at, t)
            total += np.mean(-0.5 * gap**2 / (sigma**2 * length))  # the constant left out grows without bound as D falls
            regression += length * np.mean((z - x - field(at, t)) ** 2)
        np.testing.assert_allclose(total, -regression / (2 * sigma**2), rtol=1e-10)
    assert couplings.LearnedCoupling(sigma).weight == 1 / (2 * sigma**2)


def learned_loss(a, variance, s, sigma):
    """G11's closed form: normal data of sd s, z | x ~ N(a x, variance), the best field."""
    inner = integrate.quad(
        lambda t: 1 / (t**2 * s**2 + (1 - t) ** 2 * (a**2 * s**2 + variance) + 2 * t * (1 - t) * a * s**2), 0, 1
    )[0]
    return 0.5 * (variance + a**2 * s**2 - 1 - np.log(variance)) + s**2 * variance / (2 * sigma**2) * inner


OPTIMA = [(1.0, 0.463376, 0.679158, 0.32703231, 0.7328), (0.5, 1.040270, 0.293244, 0.83148266, 0.5638)]


@pytest.mark.parametrize(("sigma", "slope", "variance", "least", "_"), OPTIMA)
def test_g11_the_closed_form(sigma, slope, variance, least, _):
    assert abs(learned_loss(slope, variance, 0.5, sigma) - least) < 1e-7
    assert abs(learned_loss(0.0, 1.0, 0.5, 0.5) - 1.57079633) < 1e-7  # independent


def learned(sigma, steps, batch):
    x = 0.5 * np.random.default_rng(0).normal(size=(20_000, 1))
    x = 0.5 * (x - x.mean()) / x.std()
    training = gen.Training(steps=steps, batch=batch, rate=1e-2, average=0.998, precision="float32")
    coupling = gen.LearnedCoupling(sigma, gen.MLP(depth=0))
    model = gen.CNF(gen.MLP(32, 2), solver=gen.RungeKutta(20), standardize=False)
    return x, nm.fit(model, x, gen.FlowMatching(coupling=coupling, training=training), progress=False)


@pytest.mark.optimized
def test_g11_x5_the_source_is_the_aggregate():
    """The law of z over the data has variance 0.733 (sigma 1, s 0.5), not 1; the model starts there, and its samples have the
    data's sd where those from N(0, I) are too wide."""
    sigma, _, _, least, aggregate = OPTIMA[0]
    x, fit = learned(sigma, 1200, 512)
    assert abs(float(fit.model.source.covariance[0, 0]) - aggregate) < 0.02
    assert abs(fit.model.source_gap - 0.5 * (aggregate - 1 - np.log(aggregate))) < 0.005
    assert abs(fit.loss - least) < 0.02
    drawn = fit.model.sample(4000, key=1)
    assert abs(drawn.std() / 0.5 - 1) < 0.08
    plain = eqx.tree_at(lambda m: m.source.root, fit.model, np.eye(1))
    assert plain.sample(4000, key=1).std() / 0.5 > 1.1
    assert fit.model.score(x) > plain.score(x) + 0.005


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "slope", "variance", "least", "_"), OPTIMA)
def test_g11_training_finds_the_optimum(sigma, slope, variance, least, _):
    """Slope, variance and loss @1e-3 of the closed form, of data with exactly the moments that it is for."""
    points = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    data = Samples.of(0.5 * points[:, None] / points.std())
    method = gen.FlowMatching(gen.LearnedCoupling(sigma, gen.MLP(depth=0)))
    model = gen.CNF(gen.MLP(32, 2), standardize=False).built(data, jax.random.key(0))
    joint = method.coupling.start(model, data, jax.random.key(1))
    training = gen.Training(steps=20_000, batch=4096, rate=5e-3, average=0.999, precision="float32")
    quiet = type("Quiet", (), {"stage": lambda self, text: None})()
    found = train(method.loss, joint, data, training, quiet, jax.random.key(2))
    mean, sd = jax.vmap(found.model.posterior.moments)(jnp.array([[-0.5], [0.5]]), jnp.zeros((2, 0)))
    a, tau2 = float(mean[1, 0] - mean[0, 0]), float(np.mean(sd**2))
    print(sigma, a - slope, tau2 - variance, np.mean(found.losses[-2000:]) - least)
    assert abs(a - slope) < 1e-3 and abs(tau2 - variance) < 1e-3
    assert abs(np.mean(found.losses[-2000:]) - least) < 1e-3


@pytest.mark.optimized
def test_g12_reflow_straightens():
    """After one reflow the bend falls to a half or less, and one Euler step comes nearer to the data."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 2)) * 0.3 + rng.choice([-2.0, 2.0], (3000, 2))
    training = gen.Training(steps=1200, batch=256, rate=5e-3, precision="float32")
    model = gen.CNF(gen.MLP(32, 2), solver=gen.RungeKutta(20))
    first = nm.fit(model, X, gen.FlowMatching(training=training), progress=False)
    again = nm.fit(first.model, X, gen.FlowMatching(gen.Reflow(first.model), training), progress=False)
    Z = np.random.default_rng(1).normal(size=(600, 2)) * X.std(0) + X.mean(0)
    bends = [gen.straightness(fit.model, Z).bend for fit in (first, again)]
    assert bends[1] < bends[0] / 2
    far = [gen.transport.wasserstein(fit.model.using(gen.Euler(1)).from_source(Z), X[:600]) for fit in (first, again)]
    assert far[1] < 0.7 * far[0]


def test_what_it_refuses(normal_data):
    with pytest.raises(gen.NotTractableError, match="VelocityField cannot compute log_prob"):
        gen.VelocityField(normal_data).log_prob(normal_data)
    with pytest.raises(nm.MethodError, match="a velocity field, which NormalizingFlow cannot"):
        nm.fit(gen.NormalizingFlow(), normal_data, gen.FlowMatching(), progress=False)
    with pytest.raises(nm.DataError, match="source has 2 columns, the data 1"):
        nm.fit(gen.VelocityField(np.zeros((4, 2))), normal_data, gen.FlowMatching(), progress=False)
    with pytest.raises(nm.DataError, match="source holds 1 values that are not finite"):
        gen.VelocityField([[np.nan]])
    with pytest.raises(nm.MethodError, match=r"coupling=...\) must be gen\.Independent"):
        gen.FlowMatching(coupling="ot")
    with pytest.raises(nm.MethodError, match=r"it is for gen\.CNF, not for VelocityField"):
        nm.fit(gen.VelocityField(normal_data), normal_data, gen.FlowMatching(gen.LearnedCoupling()), progress=False)
    with pytest.raises(nm.MethodError, match="sigma must be positive"):
        gen.LearnedCoupling(0)
    with pytest.raises(nm.MethodError, match="among must be"):
        gen.OptimalTransport(0)
    with pytest.raises(nm.MethodError, match="Reflow of a CNF is for another one, not for a VelocityField"):
        earlier = gen.CNF(gen.MLP(4, 1)).built(Samples.of(normal_data), jax.random.key(0))
        nm.fit(gen.VelocityField(normal_data), normal_data, gen.FlowMatching(gen.Reflow(earlier)), progress=False)
