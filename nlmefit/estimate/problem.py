"""A latent model and a data set, as every method sees them, and what the model computes once from an answer."""

from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.estimate.batches import Batches
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import is_gaussian
from nlmefit.latent.distribution import family
from nlmefit.latent.model import AbstractLatentModel, Dataset
from nlmefit.latent.programs import program


class Final(NamedTuple):
    """The parts of a result that the model computes from the estimates."""

    names: tuple[str, ...]
    report: np.ndarray
    """Named natural-scale scalars (k,)."""
    slope: np.ndarray
    """Their Jacobian in u (k, p)."""
    theta: dict[str, np.ndarray]
    root: np.ndarray
    """Omega's Cholesky factor (q, q)."""
    individual: dict[str, np.ndarray]
    """Individual parameters by name (N,)."""


@program
def _finish(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def finish(u: Array, fixed: Theta, z: Array, subjects: Any) -> Any:
        def report(u: Array) -> tuple[Array, Array]:
            values = model.reported(coordinates.theta(u, fixed))
            return values, values

        slope, values = jax.jacfwd(report, has_aux=True)(u)
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)
        individual = jax.vmap(lambda z, s: model.individual(theta, root @ z, s))(z, subjects)
        return values, slope, theta, root, individual

    return compiled(finish)


class Problem:
    """p(y_i | theta, eta_i), i = 1..N, with theta as a vector u of free coordinates."""

    def __init__(self, model: AbstractLatentModel, data: Dataset):
        self.model, self.data = model, data
        self.subjects, self.ids, self.size = data.subjects, np.asarray(data.ids), len(data.ids)
        self.coordinates = Coordinates(model.parameters())
        self.fixed: Any = self.coordinates.fixed()
        self.q = len(model.eta_names())

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.subjects, self.size, self.model.solves_ode)

    def restarted(self, u: Float[np.ndarray, "p"]) -> "Problem":
        """The same problem, started from u."""
        theta = self.coordinates.theta(jnp.asarray(u), self.fixed)
        moved = copy(self)
        parameters = self.coordinates.parameters
        starts = {n: p if p.fixed else replace(p, start=np.asarray(theta[n])) for n, p in parameters.items()}
        moved.coordinates = Coordinates(starts)
        return moved

    def labels(self, mask: Bool[np.ndarray, "N"]) -> tuple[Any, ...]:
        """The chosen subjects, as the user calls them."""
        return tuple(self.ids[np.asarray(mask, bool)])

    def final(self, u: Float[np.ndarray, "p"], z: Float[np.ndarray, "N q"]) -> Final:
        """Everything that the model computes once at the end, in one compiled call."""
        run = _finish(self.model)
        values = jax.tree.map(np.asarray, run(np.asarray(u), self.fixed, z, self.subjects))
        names, individual = self._names
        report, slope, theta, root, parameters = values
        return Final(names, report, slope, theta, root, {name: parameters[name] for name in individual})

    def outside_support(self, u: Float[np.ndarray, "p"]) -> dict[str, tuple[str, Bool[np.ndarray, "N n"]]]:
        """By site that is not normal: the distribution's family, and which observations (N, n) lie outside its support."""
        others = {name: kind for name, (kind, gaussian) in self.families.items() if not gaussian}
        if not others:
            return {}

        def outside(u: Array, subject: Any) -> dict[str, Array]:
            sites = self.model.observe(self.coordinates.theta(u, self.fixed), jnp.zeros(self.q), subject)
            return {n: subject.mask[n] & ~jnp.asarray(sites[n].support(subject.observed[n])) for n in others}

        found = compiled(jax.vmap(outside, in_axes=(None, 0)))(np.asarray(u), self.subjects)
        return {name: (kind, np.asarray(found[name])) for name, kind in others.items()}

    @cached_property
    def families(self) -> dict[str, tuple[str, bool]]:
        """By site: the family of its distribution, and whether it is normal."""
        found: dict[str, tuple[str, bool]] = {}

        def look(u: Array, subject: Any) -> None:
            sites = self.model.observe(self.coordinates.theta(u, self.fixed), jnp.zeros(self.q), subject)
            found.update({name: (family(d), is_gaussian(d)) for name, d in sites.items()})

        jax.eval_shape(look, np.zeros(self.coordinates.size), jax.tree.map(lambda x: x[0], self.subjects))
        return found

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the reported scalars and of the individual parameters, in the model's order (a PyTree would sort them)."""
        found: list[tuple[str, ...]] = []

        def look(u: Array, subject: Any) -> None:
            theta = self.coordinates.theta(u, self.fixed)
            found.append(tuple(self.model.report(theta)))
            found.append(tuple(self.model.individual(theta, jnp.zeros(self.q), subject)))

        jax.eval_shape(look, np.zeros(self.coordinates.size), jax.tree.map(lambda x: x[0], self.subjects))
        return found[0], found[1]

    def gaussian_observations(self) -> Float[np.ndarray, "N"]:
        """Number of normal observations by subject: those whose log(2 pi) NONMEM leaves out."""
        masks = [self._uncensored(n) for n, (kind, gaussian) in self.families.items() if gaussian or kind == "CensoredNormal"]
        return np.sum([mask.sum(axis=1) for mask in masks], axis=0) if masks else np.zeros(self.size)

    def _uncensored(self, name: str) -> Bool[np.ndarray, "N n"]:
        mask = np.asarray(self.subjects.mask[name], bool)
        marked = getattr(self.subjects, "censoring", {}).get(name)
        return mask if marked is None else mask & (np.asarray(marked.flag) == 0)
