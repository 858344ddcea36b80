"""GANs and their critics (claims F2, F3, F4, F6, F7), most on laws whose divergences are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.adversarial import game as games
from nlmefit.generative.adversarial.critic import Critic
from nlmefit.generative.divergence import Draws, Interval, gan_value, jensen_shannon, optimal_discriminator
from nlmefit.generative.rows import Samples
from nlmefit.generative.transport.optimal_transport import wasserstein

QUIET = {"progress": False}
P, Q = stats.norm(0, 1), stats.norm(1, 0.8)
LINE = Interval(-12.0, 12.0)
JS = 0.139495501
SMOOTH, BROKEN = gen.MLP(16, 2, "silu"), gen.MLP(32, 2, "relu")


def spread(n: int) -> np.ndarray:
    """Rows of N(0, 1) without its noise, in random order."""
    return np.random.default_rng(0).permutation(stats.norm.ppf((np.arange(n) + 0.5) / n))


def facing_still(X, mean, sd, method, critic=SMOOTH, key=0):
    """A critic trained against samples of N(mean, sd^2), by a generator whose weights are constants."""
    model = gen.GAN(1, gen.MLP(1, 0), critic).built(Samples.of(X), jax.random.key(key))
    center, scale = model.standard.center[0], model.standard.scale[0]
    layer = (np.array([[sd / scale]]), np.array([(mean - center) / scale]))
    still = eqx.tree_at(lambda g: (g.layers[0].weight, g.layers[0].bias), model.players.generator, layer)
    return nm.fit(model.played_by(still, model.players.critic), X, method, key=key, **QUIET).model


def training(steps, batch=256, rate=3e-3, **other):
    return gen.Training(steps=steps, batch=batch, rate=rate, betas=(0.5, 0.99), precision="float32", **other)


def logit(model):
    f = jax.jit(jax.vmap(lambda x: model.players.critic(model.standard.x(x)[None], jnp.zeros((1, 0)))))
    return lambda x: np.asarray(f(jnp.reshape(jnp.asarray(x), (-1, 1))))


# ---- the critic of densities that are known ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def discriminator():
    game = gen.JensenShannon(penalty=0.0)
    return facing_still(spread(20_000), 1.0, 0.8, gen.Adversarial(game, training=training(3000, batch=1024, rate=5e-3)))


def test_f2_a_trained_discriminator_is_the_optimal_one(discriminator):
    """F2: D = p / (p + q) within 0.02 wherever p + q > 0.01."""
    x = np.linspace(-4, 5, 400)
    x = x[P.pdf(x) + Q.pdf(x) > 0.01]
    found = 1 / (1 + np.exp(-logit(discriminator)(x)))
    error = np.max(np.abs(found - optimal_discriminator(P.logpdf, Q.logpdf)(x)))
    print(f"F2: sup error {error:.4f} on [{x[0]:.2f}, {x[-1]:.2f}]")
    assert error < 0.02


def test_f3_a_trained_discriminator_bounds_jensen_shannon(discriminator):
    """F3: V(D) / 2 + log 2 <= JS = 0.139495501, and within 1e-3 of it; `critic_distance` estimates it on other rows."""
    assert jensen_shannon(P.logpdf, Q.logpdf, LINE).value == pytest.approx(JS, abs=1e-9)
    bound = gan_value(P.logpdf, Q.logpdf, LINE, logit(discriminator)).value / 2 + np.log(2)
    print(f"F3: JS - bound {JS - bound:.2e}")
    assert JS - 1e-3 < bound <= JS
    found = discriminator.critic_distance(P.rvs((20_000, 1), random_state=1), key=5)
    assert abs(found.value - bound) < 4 * found.mc_se < 0.02


def estimates(mean, sd, game):
    """E[f(x)] - E[f(G(z))] and `critic_distance`, from N(0, 1) to N(mean, sd^2), as shares of W_1 of the very samples."""
    X = spread(4000)
    model = facing_still(X, mean, sd, gen.Adversarial(game, critic_steps=1, training=training(1500)), BROKEN)
    Y = model.sample(len(X), key=7)
    f, scale, exact = logit(model), model.standard.scale[0], wasserstein(X, Y, order=1)
    return scale * np.array([np.mean(f(X)) - np.mean(f(Y)), model.critic_distance(X, key=7).value]) / exact


def test_f4_the_critic_of_a_shift_is_the_shift():
    """F4: |shift| within 2 %, by E[f(x)] - E[f(G(z))] and by the bound of a critic held by a strong penalty."""
    plain, bound = estimates(2.0, 1.0, gen.Wasserstein(penalty=100.0))
    print(f"F4: shift, plain {plain:.4f}, bound {bound:.4f}")
    assert 0.98 < plain < 1.02
    assert 0.98 < bound < 1 + 1e-6


def test_f4_the_penalty_makes_the_better_critic():
    """F4: from N(0, 1) to N(0, 0.3^2) the best critic is |x|, which clipping does not come as near to as the penalty does."""
    (_, penalty), (_, clipping) = (estimates(0.0, 0.3, gen.Wasserstein(c)) for c in ("penalty", "clipping"))
    print(f"F4: spread, penalty {penalty:.4f}, clipping {clipping:.4f}")
    assert clipping < penalty < 1 + 1e-6
    assert penalty > 0.98


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_f4_no_critic_exceeds_the_distance(scale):
    """F4: divided by its largest slope no critic, trained or not, says more than W_1 of the same two samples."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(0.5, 1.5, (300, 2))
    for seed in range(5):
        critic = Critic.of(gen.MLP(16, 2, "tanh"), 1, 2, 0, jax.random.key(seed))
        critic = jax.tree.map(lambda w: scale * w if eqx.is_inexact_array(w) else w, critic)
        groups = (games.Groups(jnp.asarray(z)[:, None], jnp.zeros((300, 1, 0))) for z in (x, y))
        assert gen.Wasserstein().bound(critic, *groups).value <= wasserstein(x, y, order=1)


def test_f6_spectral_bound():
    """F6: the product of singular values and steepest slopes is at least the largest gradient; an affine map's is exact."""
    x = np.random.default_rng(0).normal(0, 3, (2000, 3))
    for activation in ("tanh", "relu", "silu", "gelu", "softplus", "selu"):
        network = gen.MLP(16, 2, activation).build(3, 1, jax.random.key(1))
        steepest = np.max(np.linalg.norm(jax.vmap(jax.grad(lambda x, f=network: f(x)[0]))(x), axis=1))
        assert steepest <= gen.lipschitz_bound(network) < 50 * steepest
    affine = gen.MLP(1, 0).build(3, 1, jax.random.key(2))
    assert gen.lipschitz_bound(affine) == pytest.approx(np.linalg.norm(affine.layers[0].weight), rel=1e-12)
    steepest_silu = 1.0998393194
    one = eqx.tree_at(
        lambda f: [layer.weight for layer in f.layers], gen.MLP(1, 1).build(1, 1, jax.random.key(3)), [jnp.ones((1, 1))] * 2
    )
    assert gen.lipschitz_bound(one) == pytest.approx(steepest_silu, rel=1e-8)


# ---- the games' losses ------------------------------------------------------------------------------------------------


@pytest.fixture
def sides():
    """An affine critic of two rows at once, f = 3 x_11 - 4 x_22 + 0.5, and groups."""
    rng = np.random.default_rng(0)
    critic = Critic.of(gen.MLP(1, 0), 2, 2, 0, jax.random.key(0))
    critic = eqx.tree_at(
        lambda c: (c.network.layers[0].weight, c.network.layers[0].bias),
        critic,
        (jnp.array([[3.0, 0.0, 0.0, -4.0]]), jnp.array([0.5])),
    )
    real, fake = (games.Groups(jnp.asarray(rng.normal(size=(50, 2, 2))), jnp.zeros((50, 2, 0))) for _ in range(2))
    return critic, real, fake


def test_losses_of_goodfellows_game(sides):
    critic, real, fake = sides
    game, key = gen.JensenShannon(penalty=0.0), jax.random.key(0)
    f, g = (3 * np.asarray(x[:, 0, 0]) - 4 * np.asarray(x[:, 1, 1]) + 0.5 for x, _ in (real, fake))
    value = gan_value(None, None, Draws(p=f, q=g), lambda f: f).value
    assert float(game.critic_loss(critic, real, fake, key)) == pytest.approx(-value, rel=1e-12)
    assert float(game.estimate(f, g)) == pytest.approx(value / 2 + np.log(2), rel=1e-12)
    assert game.bound(critic, real, fake).value == pytest.approx(value / 2 + np.log(2), rel=1e-12)
    d = 1 / (1 + np.exp(-g))
    assert float(game.generator_loss(critic, fake)) == pytest.approx(-np.mean(np.log(d)), rel=1e-12)
    minimax = gen.JensenShannon(saturating=True).generator_loss(critic, fake)
    assert float(minimax) == pytest.approx(np.mean(np.log1p(-d)), rel=1e-9)
    with_r1 = gen.JensenShannon(penalty=0.1).critic_loss(critic, real, fake, key)
    assert float(with_r1) == pytest.approx(-value + 0.05 * 25, rel=1e-9)


def test_losses_of_the_wasserstein_game(sides):
    critic, real, fake = sides
    f, g = (float(np.mean(critic.values(*groups))) for groups in (real, fake))
    key = jax.random.key(0)
    clipped = gen.Wasserstein("clipping", clip=0.2)
    assert float(clipped.critic_loss(critic, real, fake, key)) == pytest.approx(g - f, rel=1e-12)
    np.testing.assert_array_equal(clipped.constrained(critic.network.layers[0].weight), [[0.2, 0, 0, -0.2]])
    found, both = gen.Wasserstein(penalty=3.0), gen.Wasserstein(penalty=3.0, two_sided=True)
    assert float(found.critic_loss(critic, real, fake, key)) == pytest.approx(g - f + 3 * (5 - 1) ** 2, rel=1e-9)
    flat = jax.tree.map(lambda w: 0.1 * w if eqx.is_inexact_array(w) else w, critic)  # of slope 0.5
    for game, term in ((found, 0.0), (both, 3 * 0.5**2)):
        assert float(game.critic_loss(flat, real, fake, key)) == pytest.approx(0.1 * (g - f) + term, rel=1e-9)
    assert found.bound(critic, real, fake).value == pytest.approx((f - g) / 5, rel=1e-12)
    np.testing.assert_array_equal(found.constrained(critic.network.layers[0].weight), critic.network.layers[0].weight)


# ---- fits ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def X():
    root = np.array([[0.8, 0.0], [0.5, 0.4]])
    return [10.0, -0.5] + np.random.default_rng(2).standard_normal((3000, 2)) @ root.T


AFFINE = gen.GAN(2, gen.MLP(1, 0), gen.MLP(32, 2))


def slow_and_steady(**other):
    return gen.Training(steps=2000, batch=128, rate=3e-3, average=0.99, betas=(0.0, 0.9), precision="float32", **other)


@pytest.fixture(scope="module")
def fit(X):
    return nm.fit(AFFINE, X, gen.Adversarial(gen.JensenShannon(penalty=0.1), training=slow_and_steady(held_out=0.2)), **QUIET)


@pytest.fixture(scope="module")
def wasserstein_fit(X):
    return nm.fit(AFFINE, X, gen.Adversarial(gen.Wasserstein(), critic_steps=2, packing=2, training=slow_and_steady()), **QUIET)


@pytest.mark.parametrize("name", ["fit", "wasserstein_fit"])
def test_an_affine_generator_of_normal_rows_finds_their_law(name, X, request):
    """The generator's law N(b, A A') is known: it is the data's, but for noise."""
    model = request.getfixturevalue(name).model
    weight, bias = (
        np.asarray(part) for part in (model.players.generator.layers[0].weight, model.players.generator.layers[0].bias)
    )
    np.testing.assert_array_equal(model.standard.center, X.mean(axis=0))  # no constant goes through single precision
    assert np.max(np.abs(bias)) < 0.1
    assert np.max(np.abs(weight @ weight.T - np.corrcoef(X.T))) < 0.15


def test_the_status_is_of_samples_beside_rows(fit, X):
    assert fit.status, str(fit.status)
    assert "between 600 samples and as many rows held out is" in str(fit.status)
    assert list(fit.history) == ["step", "loss", "critic", "generator"]
    short = nm.fit(AFFINE, X, gen.Adversarial(training=gen.Training(steps=5)), **QUIET)
    assert short.status.state == "uncertain" and "Samples can be told from data" in str(short.status)
    assert "1000 samples and as many rows that it was trained on" in str(short.status)


def test_critic_distance_of_a_fit(fit, wasserstein_fit, X):
    """Small beside the model's own data, large beside others, and never beyond what it bounds."""
    for found in (fit, wasserstein_fit):
        near, far = found.model.critic_distance(X), found.model.critic_distance(X + np.array([0.5, 0.3]))
        assert near.value < 0.12
        assert np.isfinite(far.value) and near.mc_se < 0.1
    assert fit.model.critic_distance(X + 100).value <= np.log(2)


def test_it_goes_on_with_the_same_critic(fit, X):
    method = gen.Adversarial(gen.JensenShannon(penalty=0.1), training=gen.Training(steps=1, rate=1e-9))
    more = nm.fit(fit.model, X, method, **QUIET).model
    np.testing.assert_allclose(logit_of(more), logit_of(fit.model), atol=1e-5)
    other = nm.fit(fit.model, X, gen.Adversarial(gen.Wasserstein(), packing=3, training=gen.Training(steps=1)), **QUIET).model
    assert other.players.critic.packing == 3


def logit_of(model):
    return float(model.players.critic(jnp.ones((1, 2)), jnp.zeros((1, 0))))


def test_conditional(X):
    """x = 2 c + noise, by a generator of (z, c)."""
    rng = np.random.default_rng(4)
    c = rng.uniform(-1, 1, (3000, 1))
    rows = 2 * c + 0.3 * rng.normal(size=c.shape)
    training = gen.Training(steps=2000, batch=128, rate=3e-3, average=0.99, betas=(0.0, 0.9), precision="float32")
    model = gen.GAN(1, gen.MLP(1, 0), gen.MLP(32, 2), noise="uniform")
    found = nm.fit(model, (rows, c), gen.Adversarial(gen.JensenShannon(penalty=0.1), training=training), **QUIET)
    samples = [found.model.sample(2000, given=[at]) for at in (-0.8, 0.8)]
    np.testing.assert_allclose([np.mean(x) for x in samples], [-1.6, 1.6], atol=0.15)
    assert 0.2 < np.std(samples[0]) < 0.4
    assert found.model.critic_distance(rows, given=c).value < 0.05
    with pytest.raises(nm.DataError, match=r"conditional: give its 1 condition"):
        found.model.critic_distance(rows)


def test_f7_modes_of_a_ring():
    """F7: 8 normals of sd 0.05 on a circle; at least 7 covered, most samples within 3 sd of one. (The grid is a benchmark.)"""
    rng = np.random.default_rng(0)
    angle = np.arange(8) * np.pi / 4
    centers = np.column_stack([np.cos(angle), np.sin(angle)])
    rows = centers[rng.integers(0, 8, 20_000)] + 0.05 * rng.normal(size=(20_000, 2))
    method = gen.Adversarial(
        packing=2, training=gen.Training(steps=2500, batch=128, rate=1e-3, average=0.99, betas=(0.5, 0.99), precision="float32")
    )
    model = nm.fit(gen.GAN(2, gen.MLP(64, 2, "relu"), gen.MLP(64, 2, "relu")), rows, method, **QUIET).model
    far = np.linalg.norm(model.sample(2000)[:, None] - centers, axis=-1)
    good = far.min(axis=1) < 0.15
    covered = len(np.unique(far.argmin(axis=1)[good]))
    print(f"F7: ring {covered} modes, {100 * good.mean():.1f} % of high quality")
    assert covered >= 7 and np.mean(good) > 0.6


def test_betas_are_adams():
    """Without memory of gradients (beta1 = 0) the step is rate * g / |rms g|."""
    import optax

    settings = gen.Training(steps=50, rate=0.1, betas=(0.0, 0.5))
    optimizer, plain = settings.optimizer(), optax.adam(0.1, b1=0.0, b2=0.5)
    weights = jnp.array([1.0, 2.0])
    memory, other = optimizer.init(weights), plain.init(weights)
    for slope in (jnp.array([3.0, -2.0]), jnp.array([1.0, 5.0])):
        change, memory = optimizer.update(slope, memory, weights)
        expected, other = plain.update(slope, other, weights)
        np.testing.assert_allclose(change, expected, rtol=1e-2)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: gen.GAN(0), nm.ModelError, r"GAN\(latent=...\) must be a whole number from 1 up, got 0"),
        (lambda: gen.GAN(2, critic="mlp"), nm.ModelError, r"GAN\(critic=...\) must be gen.MLP"),
        (lambda: gen.GAN(2, noise="cauchy"), nm.ModelError, "noise=...\\) must be one of 'normal', 'uniform', got 'cauchy'"),
        (lambda: gen.GAN(2).sample(3), nm.ModelError, "this GAN has not been fitted"),
        (lambda: gen.GAN(2).critic_distance(np.ones((3, 2))), nm.ModelError, "this GAN has not been fitted"),
        (lambda: gen.Adversarial("js"), nm.MethodError, r"gen.JensenShannon\(...\) or gen.Wasserstein\(...\), got 'js'"),
        (lambda: gen.Adversarial(packing=0), nm.MethodError, "packing must be a whole number from 1 up"),
        (lambda: gen.Adversarial(critic_steps=0), nm.MethodError, "critic_steps must be a whole number from 1 up"),
        (
            lambda: gen.Wasserstein("spectral"),
            nm.MethodError,
            r"constraint=...\) must be one of 'penalty', 'clipping', got 'spectral'",
        ),
        (lambda: gen.Wasserstein(clip=0.0), nm.MethodError, "clip must be a finite number, above 0, got 0"),
        (lambda: gen.JensenShannon(penalty=-1.0), nm.MethodError, "penalty must be a finite number, from 0 up, got -1"),
        (lambda: gen.Training(betas=(0.5, 1.0)), nm.MethodError, "betas must be two numbers from 0 to below 1"),
        (
            lambda: nm.fit(gen.GAN(2), np.eye(3), gen.Adversarial(packing=4), **QUIET),
            nm.DataError,
            "a critic of 4 rows at once needs as many in a batch; there are 3 rows",
        ),
        (lambda: nm.fit(gen.GAN(2), np.eye(3), gen.MaximumLikelihood(), **QUIET), nm.MethodError, r"GAN is fitted by gen.Adv"),
        (
            lambda: nm.fit(gen.CNF(), np.eye(3), gen.Adversarial(), **QUIET),
            nm.MethodError,
            "needs a model that can compute samples by a generator, with a critic beside it, which CNF cannot",
        ),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_what_a_gan_cannot_do(fit, X):
    for call in ("log_prob", "elbo", "posterior", "stein_score"):
        with pytest.raises(gen.NotTractableError, match=f"GAN cannot compute {call}: .* It has: sample, critic_distance"):
            getattr(fit.model, call)(X)
    with pytest.raises(nm.DataError, match="X has 3 columns, the model 2"):
        fit.model.critic_distance(np.ones((4, 3)))


def test_a_lipschitz_bound_is_of_a_network(fit):
    with pytest.raises(nm.ModelError, match=r"such as model.players.critic.network, got GAN"):
        gen.lipschitz_bound(fit.model)
    assert gen.lipschitz_bound(fit.model.players.critic.network) > 0


def test_a_critic_of_two_rows_needs_two(wasserstein_fit):
    with pytest.raises(nm.DataError, match="X has 1 rows, and this model's critic looks at 2 at once"):
        wasserstein_fit.model.critic_distance(np.ones((1, 2)))


def test_saved_and_loaded(fit, tmp_path):
    fit.save(tmp_path / "gan")
    again = nm.load(tmp_path / "gan")
    np.testing.assert_array_equal(again.model.sample(4), fit.model.sample(4))
    assert again.model.game == fit.model.game and str(again) == str(fit)
