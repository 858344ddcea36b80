"""Variational autoencoders, against linear ones whose marginal likelihood is known, and against the same model on the seam."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.core import gaussian
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.random_numbers import matched
from nlmefit.estimate.variational import wake_sleep
from nlmefit.generative.rows import Samples
from nlmefit.generative.variational import vae

AFFINE = gen.MLP(depth=0)
NONE = jnp.zeros(0)


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(3)
    W = np.array([[1.0, 0.8, 0.0, -0.7, 0.9], [0.0, 0.6, 1.2, 0.6, -0.8]])
    return rng.normal(size=(60, 2)) @ W + np.linspace(0.4, 0.8, 5) * rng.normal(size=(60, 5)) + 1.0


@pytest.fixture(scope="module")
def linear(X):
    """Affine decoder and encoder, at random weights."""
    model = gen.VAE(2, AFFINE, AFFINE, covariance="full").built(Samples.of(X), jax.random.key(1))
    return eqx.tree_at(lambda m: m.networks.own, model, jnp.linspace(-1.0, -0.3, 5))


def as_factor_analysis(model):
    """The same p(x, z), whose marginal and posterior are known."""
    z = jnp.zeros(model.latent)
    weights = jax.jacfwd(lambda z: model.decoded(z, NONE))(z)
    noise = model.emission(z, NONE).scale
    return gen.FactorAnalysis(model.latent, *(np.asarray(part) for part in (weights, model.decoded(z, NONE), noise)))


def with_exact_encoder(model):
    """With q the posterior."""
    exact = as_factor_analysis(model)
    origin, slope = exact.encoded(jnp.zeros(5), NONE), jax.jacfwd(lambda x: exact.encoded(x, NONE).mean)(jnp.zeros(5))
    units = model.standard
    root = origin.root
    bias = jnp.concatenate([origin.mean + slope @ units.center, jnp.log(jnp.diag(root)), root[jnp.tril_indices(2, -1)]])
    weight = jnp.zeros((5, 5)).at[:2].set(slope * units.scale)
    layer = lambda m: (m.networks.encoder.layers[0].weight, m.networks.encoder.layers[0].bias)  # noqa: E731
    return eqx.tree_at(layer, model, (weight, bias))


def expected(function, q=2):
    """Over standard normal eps, exactly where the function is quadratic."""
    return jnp.mean(jax.vmap(function)(jnp.asarray(matched(64, q))))


@eqx.filter_jit
def bounds(model, X):
    return jax.vmap(lambda x: expected(lambda e: model.bound_along(x, NONE, e)))(jnp.asarray(X))


def test_a7_the_bound_is_short_of_log_p_by_the_divergence_from_the_posterior(X, linear):
    exact = as_factor_analysis(linear)
    gap = jax.vmap(gaussian.kl)(linear.posterior(X), exact.posterior(X))
    np.testing.assert_allclose(exact.log_prob(X) - bounds(linear, X), gap, rtol=1e-10)
    assert np.min(gap) > 0.1


def test_a8_forms_of_the_bound(X, linear):
    """Reconstruction minus divergence, and log p(x, z) - log q(z): the same number, exactly and within 4 standard errors."""
    weights = jax.jit(jax.vmap(lambda x: expected(lambda e: linear.log_weight_along(x, NONE, e))))(jnp.asarray(X))
    np.testing.assert_allclose(weights, bounds(linear, X), atol=1e-10)
    x = jnp.asarray(X[0])
    drawn = jax.jit(jax.vmap(lambda k: linear.log_weight(x, NONE, k)))(jax.random.split(jax.random.key(0), 4000))
    mean, error = float(drawn.mean()), float(drawn.std() / np.sqrt(4000))
    assert abs(mean - bounds(linear, X[:1])[0]) < 4 * error
    assert abs(linear.elbo(X[:1], draws=4000)[0] - bounds(linear, X[:1])[0]) < 4 * error


def test_c2_the_divergence_of_q_from_the_prior(X, linear):
    """sum (m^2 + s^2 - 1 - log s^2) / 2 of independent normals, and that of any, to 1e-12."""
    prior = gaussian.Gaussian(jnp.zeros(2), jnp.eye(2))
    q = linear.encoded(jnp.asarray(X[0]), NONE)
    assert float(vae._divergence(q)) == pytest.approx(float(gaussian.kl(q, prior)), abs=1e-12)
    sd = jnp.diag(q.root)
    independent = vae._divergence(gaussian.Gaussian(q.mean, jnp.diag(sd)))
    assert float(independent) == pytest.approx(float(0.5 * jnp.sum(q.mean**2 + sd**2 - 1 - jnp.log(sd**2))), abs=1e-12)


def test_a9_more_draws_a_tighter_bound(X, linear):
    truth = as_factor_analysis(linear).log_prob(X).sum()
    close = eqx.tree_at(lambda m: m.networks.encoder.layers[0].bias, with_exact_encoder(linear), replace_fn=lambda b: b + 0.3)
    values = [bounds(close, X).sum()]
    values += [close.log_marginal(X, draws=k).value for k in (5, 50)]
    found = close.log_marginal(X)
    assert values[0] < values[1] < values[2] < truth
    assert found.value == pytest.approx(truth, abs=4 * found.mc_se)
    assert found.kind == "bound" and len(found.per_subject) == len(X) and found.per_subject["ess"].max() <= 500


def test_a9_weights_are_constant_where_q_is_the_posterior(X, linear):
    exact = with_exact_encoder(linear)
    found = exact.log_marginal(X, draws=7)
    np.testing.assert_allclose(found.per_subject["log_likelihood"], as_factor_analysis(exact).log_prob(X), atol=1e-10)
    assert found.mc_se < 1e-12


def test_a12_c4_an_encoder_is_no_better_than_a_q_for_each_subject(X, linear):
    """The amortised bound is below that of per-subject inference; a linear encoder closes the gap to < 1e-6."""
    own = nm.evaluate(linear, X, nm.VI()).contributions["log_likelihood"].to_numpy()
    assert np.all(bounds(linear, X) < own)
    np.testing.assert_allclose(bounds(with_exact_encoder(linear), X), own, atol=1e-6)


def test_b6_the_same_bound_on_the_seam(X):
    """Decoder, q and draws the same: through log_joint as every NLME method reads it, and through the VAE, to 1e-10."""
    model = gen.VAE(2, gen.MLP(7, 1, "tanh"), gen.MLP(5, 1), gen.GaussianLikelihood("decoded")).built(
        Samples.of(X), jax.random.key(2)
    )
    latent, data = model.bind(X)
    coordinates = Coordinates(latent.parameters())
    theta = coordinates.theta(jnp.asarray(coordinates.start()), coordinates.fixed())
    q, eps = model.posterior(X), jax.random.normal(jax.random.key(3), (len(X), 4, 2))
    by_seam = jax.jit(lambda eps: wake_sleep._bounds(latent, theta, q.mean, q.root, data.subjects, eps))(eps)
    both = jnp.concatenate([eps, -eps], axis=1)
    along = jax.jit(jax.vmap(lambda x, e: jnp.mean(jax.vmap(lambda e: model.log_weight_along(x, NONE, e))(e))))
    np.testing.assert_allclose(by_seam, along(jnp.asarray(X), both), rtol=1e-10)


def test_b6_the_referee_judges_it_without_the_encoder(X):
    model = gen.VAE(1, gen.MLP(7, 1, "tanh"), gen.MLP(5, 1)).built(Samples.of(X), jax.random.key(2))
    quadrature = nm.log_marginal(model, X, nm.Quadrature(nodes=40), progress=False)
    sampled = nm.log_marginal(model, X, nm.ImportanceSampling(draws=1000), progress=False)
    assert sampled.value == pytest.approx(quadrature.value, abs=4 * sampled.mc_se)
    weighted = model.log_marginal(X, draws=2000)
    assert weighted.value == pytest.approx(quadrature.value, abs=4 * weighted.mc_se + 0.1)


def test_b6_small_ones_are_fitted_on_the_seam(X):
    """An affine decoder with one latent variable, by Laplace's method: factor analysis, to 1e-5."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 1)) * [1.0, -0.8, 0.6, 1.2] + 0.5 * rng.normal(size=(60, 4))
    model = gen.VAE(1, AFFINE, AFFINE).built(Samples.of(X), jax.random.key(0))
    fit = nm.fit(model, X, nm.Laplace(covariance="none"), progress=False)
    best = gen.FactorAnalysis(1).maximum_likelihood(X).log_prob(X).sum()
    assert fit.log_likelihood == pytest.approx(best, abs=1e-5)
    assert as_factor_analysis(fit.model).log_prob(X).sum() == pytest.approx(fit.log_likelihood, abs=1e-8)


@pytest.mark.parametrize(("covariance", "sd"), [("full", "shared"), ("full", "column")])
def test_b3_a_linear_vae_reaches_ppca_and_factor_analysis(X, covariance, sd):
    """Within 0.01 nats of the closed form's mean log-likelihood; W spans the principal subspace."""
    best = (gen.PPCA(2) if sd == "shared" else gen.FactorAnalysis(2)).maximum_likelihood(X)
    model = gen.VAE(2, AFFINE, AFFINE, gen.GaussianLikelihood(sd), covariance)
    method = gen.VariationalBound(draws=4, training=gen.Training(steps=3000, batch=60, rate=2e-2))
    fit = nm.fit(model, X, method, progress=False)
    found = as_factor_analysis(fit.model)
    assert best.score(X) - 0.01 < found.score(X) <= best.score(X) + 1e-9
    assert bounds(fit.model, X).mean() > best.score(X) - 0.01
    angles = np.linalg.svd(np.linalg.qr(found.weights)[0].T @ np.linalg.qr(best.weights)[0], compute_uv=False)
    assert np.all(np.arccos(np.minimum(angles, 1)) < 0.05)


def test_c1_reparametrised_gradients(X, linear):
    """Unbiased, and of less variance than the score function's."""
    x = jnp.asarray(X[0])

    def at(bias):
        return eqx.tree_at(lambda m: m.networks.encoder.layers[0].bias, linear, bias)

    bias = linear.networks.encoder.layers[0].bias
    truth = jax.jit(jax.grad(lambda b: expected(lambda e: at(b).bound_along(x, NONE, e))))(bias)
    eps = jax.random.normal(jax.random.key(5), (4000, 2))
    pathwise = jax.jit(jax.vmap(jax.grad(lambda b, e: at(b).log_weight_along(x, NONE, e)), in_axes=(None, 0)))(bias, eps)
    assert np.all(np.abs(pathwise.mean(0) - truth) < 4.5 * pathwise.std(0) / np.sqrt(len(eps)) + 1e-12)

    def score_function(b, e):
        q = linear.encoded(x, NONE)
        z = q.mean + q.root @ e
        return linear.log_weight_along(x, NONE, e) * jax.grad(lambda b: gaussian.log_density(at(b).encoded(x, NONE), z))(b)

    scored = jax.jit(jax.vmap(score_function, in_axes=(None, 0)))(bias, eps)
    assert np.all(np.abs(scored.mean(0) - truth) < 4.5 * scored.std(0) / np.sqrt(len(eps)))
    assert np.all(scored.var(0) > 3 * pathwise.var(0))


def test_c6_samples_are_of_the_marginal(linear):
    exact, drawn = as_factor_analysis(linear), linear.sample(20_000, key=2)
    covariance = exact.weights @ exact.weights.T + np.diag(exact.noise**2)
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / len(drawn))
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * error)
    np.testing.assert_allclose(drawn.mean(0), exact.mean, atol=4.5 * np.sqrt(covariance.max() / len(drawn)))


def test_zeros_and_ones():
    rng = np.random.default_rng(0)
    X = (rng.uniform(size=(200, 6)) < np.where(rng.uniform(size=(200, 1)) < 0.5, 0.9, 0.1)).astype(float)
    model = gen.VAE(1, gen.MLP(8, 1), gen.MLP(8, 1), gen.BernoulliLikelihood())
    fit = nm.fit(model, X, gen.VariationalBound(training=gen.Training(steps=300, batch=100, rate=2e-2)), progress=False)
    share = X.mean(0)
    independent = np.sum(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert fit.model.log_marginal(X, draws=100).value / len(X) > independent + 0.5
    assert set(np.unique(fit.model.sample(50))) == {0.0, 1.0}
    with pytest.raises(nm.DataError, match=r"zeros and ones; X holds 6 other values, the first 0.5 in row 0, column 0"):
        nm.fit(model, np.full((1, 6), 0.5), gen.VariationalBound(), progress=False)


def test_conditions():
    """x | c ~ N(3 c, W W' + Psi): a conditional VAE samples it at a new condition."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, (400, 1))
    X = 3 * c * [1.0, -1.0, 0.5] + 0.5 * rng.normal(size=(400, 3))
    method = gen.VariationalBound(weighted=4, training=gen.Training(steps=600, batch=100, rate=1e-2))
    fit = nm.fit(gen.VAE(1, AFFINE, AFFINE), (X, c), method, progress=False)
    drawn = fit.model.sample(4000, given=[0.5])
    np.testing.assert_allclose(drawn.mean(0), [1.5, -1.5, 0.75], atol=0.15)
    np.testing.assert_allclose(drawn.std(0), 0.5, atol=0.1)
    truth = multivariate_normal(np.zeros(3), 0.25 * np.eye(3)).logpdf(X - 3 * c * [1.0, -1.0, 0.5]).sum()
    assert truth - 40 < fit.model.log_marginal(X, given=c, draws=50).value < truth + 20
    with pytest.raises(nm.DataError, match=r"conditional: give its 1 condition"):
        fit.model.elbo(X)


def test_errors(X):
    for wrong, match in [
        ({"latent": 0}, r"VAE\(latent=...\) must be a whole number"),
        ({"latent": 2, "decoder": 3}, r"VAE\(decoder=...\) must be gen.MLP"),
        ({"latent": 2, "likelihood": "normal"}, r"VAE\(likelihood=...\) must be .*gen.GaussianLikelihood"),
        ({"latent": 2, "covariance": "some"}, r"VAE\(covariance=...\) must be one of 'diagonal', 'full'"),
    ]:
        with pytest.raises(nm.ModelError, match=match):
            gen.VAE(**wrong)
    with pytest.raises(nm.ModelError, match="must be one of 'shared', 'column', 'decoded'"):
        gen.GaussianLikelihood("each")
    with pytest.raises(nm.ModelError, match="this VAE has not been fitted"):
        gen.VAE(2).sample(1)
    with pytest.raises(gen.NotTractableError, match="VAE cannot compute log_prob"):
        gen.VAE(2).log_prob(X)
    with pytest.raises(nm.MethodError, match=r"unconditioned=0\.1 is for diffusion models; VAE"):
        nm.fit(gen.VAE(2), X, gen.VariationalBound(unconditioned=0.1), progress=False)
    with pytest.raises(nm.MethodError, match="draws must be a whole number"):
        gen.VariationalBound(draws=0)
