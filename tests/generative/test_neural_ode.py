"""Neural ODEs: residual networks as Euler steps (G3), the adjoint equations (G4), orders of the solvers, and refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.transport import neural_ode


def linear(t, z, theta):
    return theta * z


def network(key=0):
    net = gen.MLP(8, 1, "tanh").build(3, 2, jax.random.key(key))
    return net, lambda t, z, net: net(jnp.concatenate([z, jnp.reshape(jnp.asarray(t, z.dtype), 1)]))


def test_g3_an_euler_step_of_length_1_is_a_residual_block():
    """z + f(z), bitwise."""
    net, field = network()
    z = jnp.array([0.3, -1.2])
    np.testing.assert_array_equal(gen.Euler(1).solve(field, z, net, 0.0, 1.0), z + field(0.0, z, net))


def test_g4_adjoint_of_a_linear_equation():
    """dz/dt = theta z, L = z(T1)^2: dL/dz0 = 21.23204177, dL/dtheta = 41.40248146 @5e-10, and both times' gradients."""
    theta, end, z = 0.7, 1.5, 1.3
    last = z * np.exp(theta * end)
    found = neural_ode.adjoint(
        linear, jnp.asarray(last), jnp.asarray(2 * last), jnp.asarray(theta), 0.0, end, gen.Adaptive(1e-12)
    )
    np.testing.assert_allclose(found.z, 21.232041770, atol=5e-9)
    np.testing.assert_allclose(found.theta, 41.402481460, atol=1e-8)
    np.testing.assert_allclose(found.z, 2 * z * np.exp(2 * theta * end), atol=5e-10 * 21)
    np.testing.assert_allclose(found.theta, 2 * end * z**2 * np.exp(2 * theta * end), atol=5e-10 * 41)
    slope = 2 * theta * z**2 * np.exp(2 * theta * end)
    np.testing.assert_allclose([found.start, found.end], [-slope, slope], rtol=1e-9)


def test_g4_three_gradients_of_a_network_agree():
    """The adjoint equations, diffrax's backsolve, the gradient of the steps taken, and central differences: @1e-5."""
    net, field = network()
    z = jnp.array([0.3, -1.2])

    @eqx.filter_jit
    def loss(net, solver):
        return jnp.sum(solver.solve(field, z, net, 0.0, 1.0) ** 3)

    gradients = [
        eqx.filter_jit(eqx.filter_grad(loss))(net, solver)
        for solver in (gen.RungeKutta(64), gen.Adaptive(1e-9), gen.Adaptive(1e-9, gradient="backsolve"))
    ]
    last = gen.RungeKutta(64).solve(field, z, net, 0.0, 1.0)
    gradients.append(neural_ode.adjoint(field, last, 3 * last**2, net, 0.0, 1.0, gen.RungeKutta(64)).theta)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(eqx.filter(g, eqx.is_array))]) for g in gradients]
    for other in flat[1:]:
        np.testing.assert_allclose(other, flat[0], atol=1e-5)
    weights, rest = eqx.partition(net, eqx.is_array)
    direction = jax.tree.map(lambda w: jnp.sin(jnp.arange(w.size, dtype=float)).reshape(w.shape), weights)
    h = 1e-4
    values = [
        loss(eqx.combine(jax.tree.map(lambda w, d: w + s * d, weights, direction), rest), gen.RungeKutta(64)) for s in (h, -h)
    ]
    along = sum(float(jnp.sum(a * d)) for a, d in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose((values[0] - values[1]) / (2 * h), along, rtol=1e-5)


def test_g4_the_adjoint_needs_no_more_memory_for_more_steps():
    """Bytes of the compiled programs: the same for 64 and 1024 steps, while the gradient of the steps keeps every one."""
    net, field = network()
    weights, rest = eqx.partition(net, eqx.is_array)
    z = jnp.array([0.3, -1.2])

    def bytes_of(gradient):
        return jax.jit(gradient).lower(weights).compile().memory_analysis().temp_size_in_bytes

    def by_steps(solver):
        return jax.grad(lambda w: jnp.sum(solver.solve(field, z, eqx.combine(w, rest), 0.0, 1.0) ** 3))

    def by_adjoint(solver):
        return lambda w: eqx.filter(
            neural_ode.adjoint(field, z, 3 * z**2, eqx.combine(w, rest), 0.0, 1.0, solver).theta, eqx.is_array
        )

    few, many = gen.RungeKutta(64), gen.RungeKutta(1024)
    assert bytes_of(by_adjoint(many)) == bytes_of(by_adjoint(few))
    assert bytes_of(by_steps(many)) > 10 * bytes_of(by_steps(few))


@pytest.mark.parametrize(("solver", "order"), [(gen.Euler, 1), (gen.RungeKutta, 4)])
def test_orders(solver, order):
    """The slope of log error against log step, forward and backward in time."""
    for start, end in ((0.0, 1.5), (1.5, 0.0)):
        exact = np.exp(0.7 * (end - start))
        errors = [abs(float(solver(n).solve(linear, jnp.asarray(1.0), 0.7, start, end)) - exact) for n in (32, 64)]
        np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.1)


def test_paths_and_exhausted_steps():
    times = jnp.array([0.0, 0.4, 1.5])
    for solver in (gen.Adaptive(1e-10), gen.RungeKutta(100)):
        np.testing.assert_allclose(solver.path(linear, jnp.asarray(1.0), 0.7, times), np.exp(0.7 * times), rtol=1e-8)
    assert np.isnan(gen.Adaptive(1e-9).solve(lambda t, z, a: z**2, jnp.asarray(1.0), None, 0.0, 2.0))  # infinite at t = 1


def test_what_solvers_refuse():
    with pytest.raises(nm.MethodError, match="steps must be"):
        gen.Euler(0)
    with pytest.raises(nm.MethodError, match="tolerance must be a number between 0 and 1, got 2"):
        gen.Adaptive(2)
    with pytest.raises(nm.MethodError, match=r"gradient=...\) must be one of 'checkpointed', 'backsolve'"):
        gen.Adaptive(gradient="adjoint")
