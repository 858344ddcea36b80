"""Where the parameters and the random effects of each draw of a simulation come from."""

import warnings
from typing import Any, Literal, get_args

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.data.subjects import Subjects
from nlmefit.errors import DataError, MethodError, unknown
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.problem import Problem
from nlmefit.joint_draws import approximated, has_covariance, of_chains, parameters
from nlmefit.model import Model
from nlmefit.population import PopulationModel
from nlmefit.posterior import random_effects
from nlmefit.results import Fit

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
        if isinstance(self.eta, pd.DataFrame):
            return self._parameters(), self._given(self.eta, "eta=")
        if self.eta == "population":
            return self._parameters(), None
        if self.eta == "typical":
            return self._parameters(), np.zeros((self.count, self.problem.size, self.problem.q))
        if self.eta == "mode":
            if self.fit is None:
                raise MethodError('eta="mode" needs a fit; a model alone has no empirical-Bayes estimates.')
            return self._parameters(), self._given(self.fit.eta.fillna(0.0), 'eta="mode": the fit')
        if self.eta == "individual":
            return self._individual()
        raise MethodError("eta=: " + unknown("kind", str(self.eta), get_args(Effects)))

    def _given(self, table: pd.DataFrame, where: str) -> np.ndarray:
        names = list(self.problem.model.eta_names())
        lacking = [n for n in names if n not in table]
        missing = [who for who in self.problem.ids if who not in table.index]
        if lacking or missing:
            what = f"random effect {lacking[0]}" if lacking else f"subject {missing[0]}"
            raise DataError(f"{where} has no {what}; it needs a row per ID and the columns {', '.join(names)}.")
        found = table.loc[list(self.problem.ids), names].to_numpy(float)
        return np.broadcast_to(found, (self.count, *found.shape))

    def _parameters(self) -> np.ndarray:
        """Free coordinates of each draw."""
        start, given = self.problem.coordinates.start(), self.uncertainty
        if given is None:
            return np.tile(start, (self.count, 1))
        if isinstance(given, pd.DataFrame):
            return self._tabled(given)
        if given not in get_args(Layer):
            raise MethodError("uncertainty=: " + unknown("kind", str(given), get_args(Layer)))
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
            return self._parameters(), np.nan_to_num(found.eta)
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
