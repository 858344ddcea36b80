"""Where the parameters and the random effects of each draw of a simulation come from."""

import warnings
from typing import Any, Literal, get_args

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.analysis.posterior import random_effects
from nlmefit.core.errors import DataError, MethodError, unknown
from nlmefit.core.options import check_word, is_number
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.problem import Problem
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.results.joint_draws import approximated, has_covariance, of_chains, parameters
from nlmefit.simulation.given_effects import known, of_fit

Effects = Literal["population", "individual", "mode", "typical"]
Layer = Literal["covariance", "posterior"]


class Draws:
    """Where the parameters and the random effects of each draw come from."""

    def __init__(
        self, model: Model, fit: Fit | None, people: Any, problem: Problem, eta: Any, uncertainty: Any, count: int, key: Array
    ):
        self.model, self.fit, self.people, self.problem = model, fit, people, problem
        self.eta, self.uncertainty, self.count = eta, uncertainty, count
        self.keys = jax.random.split(key)

    def found(self) -> tuple[Float[np.ndarray, "D p"], Float[np.ndarray, "D N q"] | None]:
        if isinstance(self.eta, np.ndarray):
            return self._parameters(), self._repeated(self.eta)
        if self.eta == "population":
            return self._parameters(), None
        if self.eta == "typical":
            return self._parameters(), np.zeros((self.count, self.problem.size, self.problem.q))
        if self.eta == "mode":
            if self.fit is None:
                raise MethodError('eta="mode" needs a fit; a model alone has no empirical-Bayes estimates.')
            return self._parameters(), self._repeated(of_fit(self.fit, self.problem))
        if self.eta == "individual":
            return self._individual()
        raise MethodError("eta=: " + unknown("kind", self.eta, get_args(Effects)))

    def _repeated(self, effects: Float[np.ndarray, "k N q"]) -> Float[np.ndarray, "D N q"]:
        """One value for every draw, or the first of several."""
        return np.broadcast_to(effects, (self.count, *effects.shape[1:])) if len(effects) == 1 else effects[: self.count]

    def _parameters(self) -> np.ndarray:
        """Free coordinates of each draw."""
        start, given = self.problem.coordinates.start(), self.uncertainty
        if given is None:
            return np.tile(start, (self.count, 1))
        if isinstance(given, pd.DataFrame):
            return self._tabled(given)
        check_word("uncertainty", given, get_args(Layer))
        if self.fit is None:
            raise MethodError(f"uncertainty={given!r} needs a fit; a model's values are known.")
        if given == "posterior":
            chains = of_chains(self.problem, self.fit, None)
            if chains is None:
                raise MethodError(
                    f'uncertainty="posterior" needs draws of NUTS; {self.fit.method.name} has none. Use "covariance".'
                )
            u = chains.u.reshape(-1, chains.u.shape[-1])
            return u[np.linspace(0, len(u) - 1, self.count).round().astype(int)]
        self._check_covariance()
        assert self.fit is not None
        return parameters(self.fit, self.count, self.keys[0])

    def _check_covariance(self) -> None:
        if self.fit is None or not has_covariance(self.fit):
            raise MethodError(
                "the fit has no covariance of its estimates, so that their uncertainty is not known. Fit with standard errors "
                "(covariance=), or give a table of draws: uncertainty=nm.bootstrap(...)."
            )

    def _tabled(self, table: pd.DataFrame) -> np.ndarray:
        values = self.model.values
        for name in table:
            if name not in values:
                raise DataError("uncertainty=: " + unknown("parameter", str(name), values))
            bad = np.flatnonzero(~np.array([is_number(v) for v in table[name]]))
            if len(bad):
                raise DataError(f"uncertainty=: {name} in row {bad[0]} is {table[name].iloc[bad[0]]}, not a number.")
        if len(table) == 0:
            raise DataError("uncertainty= has no rows.")
        chosen = table.iloc[np.arange(self.count) % len(table)]
        starts = []
        for row in chosen.to_dict("records"):
            moved = self.model.at({str(name): float(value) for name, value in row.items()})
            starts.append(Coordinates(PopulationModel(moved).parameters()).start())
        return np.stack(starts)

    def _individual(self) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(self.people, Subjects):
            raise MethodError('eta="individual" needs subjects with observations: a data set, or a fit that has its data.')
        source: Any = self.model if self.fit is None else self.fit
        data = Subjects.of(self.people, self.model)
        problem = Problem(PopulationModel.of(self.model, data), data)
        if self.uncertainty is None:
            found = random_effects(source, problem, self.count, self.keys[1])
            if found.warning:
                warnings.warn(found.warning, stacklevel=4)
            return self._parameters(), known(found.eta, problem, 'eta="individual": the posterior')
        if self.fit is None or self.fit.data is not self.people or isinstance(self.uncertainty, pd.DataFrame):
            raise MethodError(
                'eta="individual" with uncertain parameters needs the fit\'s own subjects and "covariance" or "posterior"; leave '
                "uncertainty= out for others."
            )
        if self.uncertainty == "posterior":
            chains = of_chains(problem, self.fit, None)
            if chains is None:
                self._parameters()  # says why
            assert chains is not None
            sample = chains
        else:
            self._check_covariance()
            sample = approximated(problem, self.fit, self.count, self.keys[0])
        u, z = (x.reshape(-1, *x.shape[2:]) for x in (sample.u, sample.z))
        chosen = np.linspace(0, len(u) - 1, self.count).round().astype(int)
        roots = [np.asarray(problem.model.omega(problem.coordinates.theta(row, problem.fixed))) for row in u[chosen]]
        return u[chosen], np.einsum("dqr,dnr->dnq", np.stack(roots), z[chosen])
