"""`nm.diagnose`: residuals, prediction errors, shrinkage and influence of a fit."""

from dataclasses import dataclass, field
from functools import cached_property

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float

from nlmefit.analysis.conditional import omega_root
from nlmefit.core.errors import DataError, MethodError, NlmefitError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_truth, check_whole
from nlmefit.core.progress import Progress
from nlmefit.core.shown import html
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics import influence, npde, residuals, shrinkage
from nlmefit.diagnostics.fit_problem import bound, own_or_given
from nlmefit.diagnostics.time_after_dose import time_after_dose
from nlmefit.estimate.modes.interaction import interaction_note
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.observations import Order
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee import predictive
from nlmefit.results.fit import Fit
from nlmefit.results.saved import model_name
from nlmefit.results.stored import same_data

LEAST_DRAWS = 100
THETA_DRAWS = 500
"""Of the parameters, for the predictive density of a subject that is left out."""


@dataclass(frozen=True)
class Diagnostics:
    """What `nm.diagnose` returns. Each part is computed when it is first asked for; `key` decides its random draws."""

    fit: Fit
    data: Subjects
    eta: pd.DataFrame
    """The random effects that IPRED and its residuals are at, by ID: the fit's, or those of other data most probable at the
    estimates. NaN where a subject has not got one (an occasion that it lacks)."""
    draws: int
    """Simulated data sets for NPDE and NPD."""
    own: bool
    """Whether the data is that of the fit."""
    problem: Problem = field(repr=False)
    key: Array = field(repr=False)
    progress: bool = field(repr=False)

    @cached_property
    def residuals(self) -> pd.DataFrame:
        """The columns of `frame` that take no random draws: ID TIME endpoint DV (CENS) PRED IPRED RES WRES CWRES IRES IWRES."""
        order, censored = self._order, self._censored
        with self._line("residuals"):
            found = residuals.residuals(
                self.problem, self._u, np.nan_to_num(self.eta.to_numpy(float)), order, censored == 0, self._interaction
            )
        table = pd.DataFrame(
            {
                "ID": self.problem.ids[order.subject],
                "TIME": np.asarray(self.data.subjects.time)[order.subject, order.row],
                "endpoint": np.array(order.sites, object)[order.site],
                "DV": order.observed,
            },
            self._labels,
        )
        return table.assign(**({"CENS": censored} if censored.any() else {}), **found._asdict())

    @cached_property
    def time_after_dose(self) -> pd.Series:
        """By observation: the time since the subject's last dose; before the first one the time to it, negative."""
        found = time_after_dose(self.data, self._order.subject, self._order.row)
        return pd.Series(found, self._labels, name="TAD")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per observation, each subject's in the order of its records, under the record's own label in the data.

        | column | what |
        |---|---|
        | ID, TIME, endpoint, DV | which observation |
        | CENS | where some are: 1 below the limit in DV, -1 above it (these have no residuals) |
        | PRED, RES, WRES | at eta = 0: prediction, residual, and residual weighted by the first-order approximation |
        | IPRED, IRES, IWRES | at the subject's eta: prediction, residual, and residual over the residual error's sd |
        | CWRES | residual weighted by the conditional approximation |
        | NPDE, NPDE_inverse, NPD | normal scores among `draws` simulations, decorrelated by Cholesky's root, by the symmetric
          root, and not decorrelated |
        | PIT | P(Y <= y given the subject's earlier observations), as `nm.one_step_ahead` has it |

        Of a model that is right WRES, CWRES (nearly), NPDE and NPD are standard normal, PIT uniform on (0, 1). NaN stands where a
        family has no such number: WRES and CWRES are of endpoints with a residual model, NPDE not of counts and categories.
        The modules `residuals` and `npde` in `nlmefit.diagnostics` state the equations.
        """
        return pd.concat([self.residuals, self.prediction_errors, self.pit], axis=1)

    @cached_property
    def prediction_errors(self) -> pd.DataFrame:
        """The columns NPDE, NPDE_inverse and NPD of `frame`."""
        with self._line("prediction errors") as line:
            found = npde.npde(self.problem, self._u, self.draws, self._order, jax.random.fold_in(self.key, 0), line)
        return pd.DataFrame(found._asdict(), self._labels)

    @cached_property
    def pit(self) -> pd.Series:
        """The column PIT of `frame`."""
        order, key = self._order, jax.random.fold_in(self.key, 1)
        everything = np.ones(len(order.place), bool)
        with self._line("one step ahead") as line:
            found = predictive.one_step_ahead(self.problem, self._u, predictive.DEFAULT, order, everything, key, line)
        return pd.Series(found["pit"], self._labels, name="PIT")

    @cached_property
    def shrinkage(self) -> pd.DataFrame:
        """Shrinkage in percent by kind ("eta", "kappa" of occasions, "epsilon" by endpoint) and name, in two columns:

            sd: 100 (1 - sd(eta) / omega), 100 (1 - sd(IWRES))    variance: 100 (1 - var(eta) / omega^2), 100 (1 - var(IWRES))

        and `count`, of how many values. sd and var are about the mean, with denominator n.
        """
        spec, problem = self.fit.model.specification, self.problem
        omega = np.linalg.norm(omega_root(problem, self._u), axis=1)
        sd = dict(zip(self.eta.columns, omega, strict=True))
        effects = {("eta", name): [name] for name in spec.etas}
        effects |= {("kappa", n): [c for c in sd if str(c).rpartition("_")[0] == f"kappa_{n}"] for n in spec.occasion_effects}
        values = {key: (self.eta[columns].to_numpy(), sd[columns[0]]) for key, columns in effects.items()}
        iwres = self.residuals.groupby("endpoint", sort=False)["IWRES"]
        return shrinkage.shrinkage(values, {str(name): x.to_numpy() for name, x in iwres})

    @cached_property
    def influence(self) -> pd.DataFrame:
        """What each subject does to the fit, by ID.

        | column | what |
        |---|---|
        | ofv | the subject's part of the objective |
        | log_predictive, khat | log p(y_i | the others' data) by PSIS, and how far to believe it (above 0.7: not) |
        | cook | size of the change of all estimates when the subject is left out, in standard errors |
        | change_NAME | that change of each estimate, to second order |

        NaN where the matrix of second derivatives is not positive definite. `nlmefit.diagnostics.influence` states the equations.
        Raises NlmefitError for diagnostics of data other than the fit's.
        """
        if not self.own:
            raise NlmefitError("influence is that of the fit's own subjects, and this is other data.")
        uncertainty, u = self.fit.uncertainty, self._u
        with self._line("influence") as line:
            change = influence.left_out(self.problem, u, self.fit.method, line)
            drawn = uncertainty is not None and uncertainty.kind == "posterior"
            spread = uncertainty.unconstrained if uncertainty is not None and drawn else change.covariance
            density = influence.left_out_density(self.problem, u, spread, THETA_DRAWS, jax.random.fold_in(self.key, 2), line)
        table = {"ofv": self.fit.contributions["ofv"].to_numpy(), **density._asdict(), "cook": change.cook}
        names = self.fit.estimates.index
        free = [k for k, name in enumerate(names) if name not in self.fit.fixed]
        return pd.DataFrame(table | {f"change_{names[k]}": change.report[:, k] for k in free}, self.eta.index)

    def __str__(self) -> str:
        head = f"Diagnostics of {model_name(self.fit.model)} by {self.fit.method.name}: {len(self.eta)} subjects"
        weighted = self.residuals.groupby("endpoint", sort=False)[["WRES", "CWRES", "IWRES"]].agg(["mean", "std"])
        return f"{head}, {len(self.residuals)} observations\n\n{weighted.round(3)}\n\nshrinkage, %\n{self.shrinkage.round(1)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)

    @cached_property
    def _order(self) -> Order:
        return Order.of(self.problem)

    @cached_property
    def _labels(self) -> pd.Index:
        """The records' own labels in the user's frame."""
        return self.data.frame.index[self.data.rows[self._order.subject, self._order.row]]

    @cached_property
    def _u(self) -> Float[np.ndarray, " p"]:
        return self.problem.coordinates.start()

    @property
    def _interaction(self) -> bool:
        """Whether the fit took the residual variance at the individual prediction."""
        stated = self.fit.conventions.get("interaction") != interaction_note(False)["interaction"]
        return stated and str(self.fit.method.name).removeprefix("MAP by ") != "FO"

    @cached_property
    def _censored(self) -> np.ndarray:
        """CENS by observation."""
        order, found = self._order, np.zeros(len(self._order.place), int)
        for name, marked in self.data.subjects.censoring.items():
            here = order.site == order.sites.index(name)
            found[here] = np.asarray(marked.flag)[order.subject[here], order.row[here]]
        return found

    def _line(self, title: str) -> Progress:
        return Progress(self.progress, title)


def diagnose(
    fit: Fit, data: pd.DataFrame | Subjects | None = None, *, draws: int = 1000, key: Key = 0, progress: bool = True
) -> Diagnostics:
    """Diagnostics of a fit, by whatever method: `.frame` (residuals and prediction errors, a row per observation), `.residuals`
    (its part without random draws), `.shrinkage`, `.influence` (by subject). Each is computed when first asked for.

    **Arguments:** `data` None for the fit's own; another data set for external validation; a fit that was loaded from a file
    needs its data here (and `nm.load(path, model=...)`). `draws` simulated data sets for NPDE and NPD: a subject's n
    observations inflate the variance of its NPDE by about n/draws. `key` decides every random draw. `progress` a line on standard
    error while a part takes longer than two seconds.

    Observations below a limit (CENS) count as they did in the fit: by M1 they are left out; else they have predictions, no
    residuals, and NPDE, NPD and PIT at random within their interval.

    Raises NlmefitError for what is no fit, or one without its data; MethodError for draws out of range; ModelError for a fit
    loaded without its model, or not of an `nm.Model`; and as `nm.fit` does for the data.
    """
    check_whole("draws", draws, LEAST_DRAWS)
    check_truth("progress", progress)
    seed = jax_key(key)
    problem, dataset = bound(fit, own_or_given(fit, data, "nm.diagnose", "diagnose"))
    if not dataset.observations.any():
        raise DataError("the data has no observation to diagnose.")
    _check_draws(draws, dataset)
    own = data is None or same_data(fit, dataset)
    names = list(problem.model.eta_names())
    ids = pd.Index(problem.ids, name="ID")
    eta = fit.eta.loc[ids, names] if own else _most_probable(problem, ids, names)
    return Diagnostics(fit, dataset, eta, draws, own, problem, seed, progress)


def _check_draws(draws: int, dataset: Subjects) -> None:
    most = int(dataset.observations.max())
    if draws < 2 * most:
        raise MethodError(f"draws={draws} are too few for a subject with {most} observations: give at least {2 * most}.")


def _most_probable(problem: Problem, ids: pd.Index, names: list[str]) -> pd.DataFrame:
    """The modes of p(eta | y) at the estimates."""
    u = problem.coordinates.start()
    values = modes(problem, u).z @ omega_root(problem, u).T
    has: Bool[np.ndarray, "N q"] = problem.model.used(problem.subjects, problem.size)
    return pd.DataFrame(np.where(has, values, np.nan), ids, names)
