"""Claims G1 and G2 on every bijection: inverse, log determinant, and densities that integrate to 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.flows import mixture_cdf, splines
from nlmefit.generative.flows.bijections import Affine, Chain, Linear, Permutation, Repeated

NETWORK = gen.MLP(8, 1)
D, C = 3, 2


def shaken(module, key=0):
    """With weights that are not those of the start, where couplings are the identity."""
    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    moved = [
        x + 0.3 * jax.random.normal(k, x.shape) if isinstance(x, jax.Array) else x for x, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def coupling(kind):
    return shaken(kind.build(D, C, jax.random.key(1)))


def rotation(size=D):
    return Linear.rotating(size, np.random.default_rng(3))


MAPS = {
    "standardizing": lambda: Affine.standardizing(np.random.default_rng(1).normal([1.0, -2.0, 0.0], [0.5, 2.0, 9.0], (20, D))),
    "actnorm": lambda: shaken(Affine(jnp.zeros(D), jnp.zeros(D))),
    "permutation": lambda: Permutation(np.array([2, 0, 1])),
    "linear": lambda: shaken(rotation()),
    "affine coupling": lambda: coupling(gen.AffineCoupling(NETWORK)),
    "spline coupling": lambda: coupling(gen.SplineCoupling(NETWORK, bins=5, bound=2.0)),
    "mixture coupling": lambda: coupling(gen.MixtureCoupling(NETWORK, components=3)),
    "chain": lambda: Chain.of(
        [
            coupling(gen.AffineCoupling(NETWORK)),
            shaken(rotation()),
            Permutation.reversing(D),
            coupling(gen.SplineCoupling(NETWORK)),
        ]
    ),
    "repeated": lambda: Repeated.of(
        [Chain.of([coupling(gen.AffineCoupling(NETWORK)), shaken(rotation(), k)]) for k in range(3)]
    ),
}
"""What makes each: not made before its test runs, since every worker reads every file."""


@pytest.mark.parametrize("name", MAPS)
def test_g1_inverse_and_log_determinant(name):
    """inverse(forward(x)) - x < 1e-10; log|det| = slogdet of the Jacobian @1e-9, both ways."""
    bijection, x = MAPS[name](), jax.random.normal(jax.random.key(5), (50, D))
    given = jax.random.normal(jax.random.key(6), (50, C))

    @jax.jit
    @jax.vmap
    def there_and_back(x, c):
        y, there = bijection.forward(x, c)
        again, back = bijection.inverse(y, c)
        jacobian = jax.jacfwd(lambda x: bijection.forward(x, c)[0])(x)
        return y, again, there, back, jnp.linalg.slogdet(jacobian)[1]

    y, again, there, back, exact = there_and_back(x, given)
    assert name == "standardizing" or not np.allclose(y, x, atol=0.1)
    np.testing.assert_allclose(again, x, atol=1e-10)
    np.testing.assert_allclose(there, exact, atol=1e-9)
    np.testing.assert_allclose(back, -exact, atol=1e-9)


def test_g1_couplings_depend_on_what_is_given():
    for name in ("affine coupling", "spline coupling", "mixture coupling"):
        x = jnp.array([0.2, -0.3, 0.5])
        bijection = MAPS[name]()
        forward = jax.jit(lambda c, bijection=bijection: bijection.forward(x, c)[0])
        assert not np.allclose(forward(jnp.zeros(C)), forward(jnp.ones(C)), atol=1e-3)


def test_a_spline_is_the_identity_outside_and_smooth_inside():
    at = splines.knots(jax.random.normal(jax.random.key(0), (14,)), 2.0)

    @jax.jit
    @jax.vmap
    def spline(x):
        return splines.forward(x, at, 2.0)

    x = jnp.array([-5.0, -2.0, 2.0, 7.0])
    np.testing.assert_array_equal(spline(x)[0], x)
    for offset in (-1e-9, 1e-9):  # slopes and values agree from both sides of a knot
        y, log_slope = spline(at.x[1:-1] + offset)
        np.testing.assert_allclose(y, at.y[1:-1], atol=1e-7)
        np.testing.assert_allclose(np.exp(log_slope), at.slope[1:-1], rtol=1e-5)
    zero = splines.knots(jnp.zeros(14), 2.0)
    np.testing.assert_allclose(splines.forward(jnp.array(0.7), zero, 2.0)[0], 0.7, atol=1e-12)


def test_a_mixture_becomes_one_normal():
    """y = Q(F(x)) against SciPy, and the inverse, derivatives in x and the parameters included; far out, too."""
    forward, inverse = jax.jit(mixture_cdf.forward), jax.jit(mixture_cdf.inverse)
    free = np.random.default_rng(1).normal(size=(9, 12))
    known = mixture_cdf.components(jnp.asarray(free))
    w, m, s = np.exp(known.log_weight), np.asarray(known.mean), np.exp(known.log_scale)
    x = np.linspace(-4.0, 4.0, 9)
    F = np.sum(w * norm.cdf(x[:, None], m, s), axis=1)
    y, log_slope = forward(jnp.asarray(x), known)
    np.testing.assert_allclose(y, norm.ppf(F), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_slope, np.log(np.sum(w * norm.pdf(x[:, None], m, s), axis=1)) - norm.logpdf(y), atol=1e-9)
    far = jnp.array([-60.0, -20.0, 20.0, 60.0])
    wide = mixture_cdf.components(jnp.asarray(free[:4]))
    y, log_slope = forward(far, wide)
    again, back = inverse(y, wide)
    np.testing.assert_allclose(again, far, rtol=1e-10)
    np.testing.assert_allclose(back, -log_slope, atol=1e-6)
    steps = np.diff([forward(far + h, wide)[0] for h in (-1e-5, 1e-5)], axis=0)[0] / 2e-5
    np.testing.assert_allclose(np.log(steps), log_slope, atol=1e-6)

    @jax.jit
    def total(free, y):
        return jnp.sum(jnp.sin(inverse(y, mixture_cdf.components(free))[0]))

    y = jnp.linspace(-2.0, 2.0, 9)
    check_grads(total, (jnp.asarray(free), y), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_a_mixture_coupling_begins_about_as_the_identity():
    x = jnp.linspace(-2.0, 2.0, 13)
    for count in (2, 4, 8):
        y, log_slope = jax.jit(mixture_cdf.forward)(x, mixture_cdf.components(jnp.zeros((13, 3 * count))))
        np.testing.assert_allclose(y, x, atol=0.05)
        np.testing.assert_allclose(log_slope, 0.0, atol=0.12)


def test_g2_plu():
    """P, L and U are SciPy's; log|det W| = sum log|u_ii| whatever the sign of det P; a permutation matrix needs P."""
    for seed in range(4):
        W = np.random.default_rng(seed).normal(size=(6, 6))
        P, _, U = scipy.linalg.lu(W)
        linear = Linear.of(W)
        np.testing.assert_allclose(linear.matrix, W, atol=1e-12)
        np.testing.assert_allclose(np.eye(6)[linear.order], P, atol=0)
        value = linear.forward(jnp.ones(6), jnp.zeros(0))[1]
        np.testing.assert_allclose(value, np.sum(np.log(np.abs(np.diag(U)))), atol=1e-12)
        np.testing.assert_allclose(value, np.linalg.slogdet(W)[1], atol=1e-12)
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(Linear.of(swap).matrix, swap, atol=0)
    # without P: min over l, a, b, d of |[[1, 0], [l, 1]] [[a, b], [0, d]] - swap|^2 under |l| <= 10 stays above 0
    low = min(a**2 + (le * a - 1) ** 2 for le in np.linspace(-10, 10, 201) for a in np.linspace(-1, 1, 401))
    assert low > 0.009  # 1 / (1 + l^2): zero only as l grows without bound
    with pytest.raises(nm.ModelError, match="the 2 x 2 matrix given is singular"):
        Linear.of(np.ones((2, 2)))
    with pytest.raises(nm.ModelError, match=r"got shape \(2, 3\)"):
        Linear.of(np.ones((2, 3)))
