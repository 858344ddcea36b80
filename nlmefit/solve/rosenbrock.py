"""One step of a Rosenbrock method, for stiff systems: implicit in the linear part, no iteration.

Rodas5P (Steinebach 2023): eight stages, order 5, stiffly accurate, with an embedded method of order 4. In transformed form, with
W = I / (gamma h) - df/dA,

    W k_i = f(t + c_i h, A + sum_j a_ij k_j) + sum_j C_ij k_j / h + d_i h df/dt

Steinebach G (2023) Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia Differential
    Equations package. BIT Numerical Mathematics 63:27.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.solve import jets
from nlmefit.solve.jets import Jet
from nlmefit.solve.ode import Field

SHORTEST = 1e-40
"""Added to every step: one of length 0 (events at one time) then leaves A as it is, with the derivatives in h that it has, and
h^-4 is still a number."""
GAMMA = 0.21193756319429014
_A = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
_C = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623, -28.087943162872662),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
_NODES = (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0)
_SLOPES = (GAMMA, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069, 0.0, 0.0, 0.0)


def rodas5p(f: Field, t: Jet, A: Jet, h: Jet) -> tuple[Jet, Any]:
    """A after a step of h, and the estimate of its error."""
    h = h + SHORTEST
    shorter = jets.apply(lambda h: 1.0 / h, h)
    W = (1.0 / GAMMA) * shorter * jnp.eye(A.value.shape[0]) - f.jacobian(t, A)
    drift, inverted = f.drift(t, A), inverse(W.value)
    increments: list[Jet] = []
    point = A
    for stage, (node, slope) in enumerate(zip(_NODES, _SLOPES, strict=True)):
        if stage < len(_A):
            point = _sum(_A[stage], increments) + A
        else:
            point = point + increments[-1]
        right = f(t + node * h, point) + shorter * _sum(_C[stage], increments) + slope * h * drift
        increments.append(jets.solve(inverted, W, right))
    return point + increments[-1], increments[-1].value


def _sum(weights: tuple[float, ...], terms: list[Jet]) -> Jet:
    return sum((w * k for w, k in zip(weights, terms, strict=True)), jets.constant(0.0))


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """By elimination without pivoting: for short steps the diagonal dominates, and a bad inverse makes a step that is refused."""
    size = matrix.shape[0]
    whole = jnp.concatenate([matrix, jnp.eye(size)], axis=1)
    for k in range(size):
        row = whole[k] / whole[k, k]
        whole = whole - whole[:, k : k + 1] * row
        whole = whole.at[k].set(row)
    return whole[:, size:]
