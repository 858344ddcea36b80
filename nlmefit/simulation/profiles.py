"""What `nm.simulate` returns: profiles by regimen, subject and draw, computed in pieces when asked for."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float

from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_numbers, is_number
from nlmefit.core.progress import Progress
from nlmefit.core.shown import html
from nlmefit.data.epochs import Rule
from nlmefit.data.regimen import Regimen
from nlmefit.data.scenario import Scenario, scenario
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.problem import Problem
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model
from nlmefit.simulation.as_records import written
from nlmefit.simulation.outputs import showing
from nlmefit.simulation.replicates import Piece, pieces, random_effects

LARGEST_FRAME = 50_000_000
"""Rows of a DataFrame beyond which it is refused."""


@dataclass(frozen=True)
class Arm:
    """One regimen: the subjects under it, laid out for the model."""

    name: str
    problem: Problem
    scenario: Scenario
    latent: PopulationModel

    @property
    def times(self) -> Float[np.ndarray, "N n"]:
        """Of the rows, NaN where padded."""
        return self.scenario.times


@dataclass(frozen=True)
class Simulation:
    """Profiles by regimen, subject and draw, computed when asked for; the same each time."""

    model: Model
    regimens: dict[str, Regimen]
    people: pd.DataFrame | Subjects = field(repr=False)
    rule: Rule = field(repr=False)
    times: Float[np.ndarray, " T"] | None = field(repr=False)
    """None: every subject's own."""
    u: Float[np.ndarray, "D p"] = field(repr=False)
    eta: Float[np.ndarray, "D N q"] | None = field(repr=False)
    """None: new ones."""
    residual: bool
    key: Array = field(repr=False)
    progress: bool = field(repr=False)

    def __str__(self) -> str:
        lines = [f"{len(self.ids)} subjects, {self.draws} draw(s) each, under {len(self.regimens)} regimen(s)"]
        return "\n".join(lines + [f"  {name}: {r}" for name, r in self.regimens.items()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def draws(self) -> int:
        return len(self.u)

    @property
    def ids(self) -> np.ndarray:
        return self.people.ids if isinstance(self.people, Subjects) else self.people["ID"].to_numpy()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All that `observe` returns, outputs without a residual model among them."""
        return self.model.outputs

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """By regimen, as seen at `times`."""
        return {name: self.arm(name, self.times) for name in self.regimens}

    def arm(self, regimen: str, times: np.ndarray | None, before: Sequence[float] = ()) -> Arm:
        """The subjects under that regimen, seen at other times (and just before doses at the times `before`)."""
        found = scenario(self.model, self.people, self.regimens[regimen], times, before=before, rule=self.rule)
        latent = PopulationModel.of(self.model, found.data)
        return Arm(regimen, Problem(showing(latent), found.data), found, latent)

    def visit(self, arm: Arm, problem: Problem, read: Callable[[Piece], None], line: Progress, *, residual: bool = False) -> int:
        """Shows `read` all draws of an arm's subjects, piece by piece, in the order of the draws; `problem` is what is computed
        of them. Returns how many draws are complete: fewer than all where Ctrl-C was pressed.

        Raises DataError where a value is not a number.
        """
        done = 0
        real = np.isfinite(arm.times)
        try:
            for piece in pieces(problem, self.u, self.key, self.eta, residual=residual):
                self._check_numbers(arm, problem, piece, real)
                read(piece)
                done = piece.draws.stop if piece.subjects.stop == problem.size else done
                line.stage(f"draw {piece.draws.stop} of {self.draws}")
        except KeyboardInterrupt:
            if done == 0:
                raise
            warnings.warn(f"interrupted: these are {done} of {self.draws} draws.", stacklevel=4)
        return done

    def _check_numbers(self, arm: Arm, problem: Problem, piece: Piece, real: Bool[np.ndarray, "N n"]) -> None:
        """DataError for the first value that is not a number. (An infinite one may be: the logarithm of 0.)"""
        for name, values in piece.values.items():
            bad = np.isnan(values) & real[piece.subjects]
            if bad.any():
                draw, who, row = (int(k) for k in np.argwhere(bad)[0])
                meanless = name not in self.model.specification.residuals and bool(np.isnan(values[:, :, row]).all())
                self._refuse(arm, problem, name, piece.draws.start + draw, piece.subjects.start + who, row, meanless)

    def _refuse(self, arm: Arm, problem: Problem, name: str, draw: int, who: int, row: int, meanless: bool) -> None:
        """DataError that says of whom, when, at which individual parameters, and why if that is known."""
        eta = random_effects(problem, self.u[draw], self.key, draw, who) if self.eta is None else self.eta[draw, who]
        theta = problem.coordinates.theta(jnp.asarray(self.u[draw]), problem.fixed)
        subject = jax.tree.map(lambda x: np.asarray(x)[who], problem.subjects)
        at = {n: float(v) for n, v in arm.latent.individual(theta, jnp.asarray(eta), subject).items()}
        covariates = {n: float(v) for n, v in subject.covariates.items() if np.ndim(v) == 0}
        told = "Its individual parameters are " + _listed(at) + (f", with {_listed(covariates)}" if covariates else "")
        odd = [n for n, v in at.items() if not v > 0]
        told += f"; {', '.join(odd)} {'is' if len(odd) == 1 else 'are'} not above 0" if odd and not meanless else ""
        when = f"in draw {draw} is not a number at TIME {arm.times[who, row]:g}"
        why = (
            "Either a covariate or a random effect drives a parameter out of its range, or `observe` has no answer there (the "
            f"logarithm of 0 before a dose, a ratio to 0){arm.latent.reasons(theta, jnp.asarray(eta), subject)}: leave that "
            "subject or time out, or mend the model."
        )
        if meanless and not self.residual:
            why = f"`observe` gives `{name}` a distribution without a mean: residual=True gives draws of it."
        raise DataError(f"under {arm.name}, `{name}` of subject {self.ids[who]} {when}. {told}. {why}")

    def frame(self) -> pd.DataFrame:
        """All profiles: a row per regimen, ID, draw and TIME with a column per endpoint.

        Raises MethodError beyond 50 million rows: `bands` and `nm.exposure` take any number.
        """
        self._check_size()
        return pd.concat([self._frame_of(name, arm) for name, arm in self.arms.items()], ignore_index=True)

    def _check_size(self) -> None:
        size = sum(self.draws * int(np.isfinite(arm.times).sum()) for arm in self.arms.values())
        if size > LARGEST_FRAME:
            raise MethodError(
                f"the profiles are {size:,} rows, too many for a DataFrame. Use .bands() or nm.exposure(simulation), or fewer "
                "times, draws or subjects."
            )

    def records(self) -> pd.DataFrame:
        """The simulation as a data set: dose records, and the simulated values as DV of observations, in NONMEM's columns with
        the subjects' covariates. Feed it to `nm.fit`, or write it by `.to_csv(path, index=False, na_rep=".")`.

        Several regimens or draws are told apart by the columns `regimen` and `draw`; one of each is a data set of its own.
        Endpoints are told apart by DVID; outputs without a residual model, which nobody observes, are left out.

        Raises as `frame` does. `nm.simulate(..., residual=True)` gives observations rather than predictions.
        """
        self._check_size()
        return pd.concat([self._records_of(name, arm) for name, arm in self.arms.items()], ignore_index=True)

    def _records_of(self, name: str, arm: Arm) -> pd.DataFrame:
        values, made = self._values_of(name, arm)
        real = np.isfinite(arm.times)
        of_draws = [
            written(arm.scenario.data.frame, {e: values[e][draw][real] for e in self.model.endpoints}) for draw in range(made)
        ]
        if self.draws > 1:
            of_draws = [table.assign(draw=draw) for draw, table in enumerate(of_draws)]
        table = pd.concat(of_draws, ignore_index=True)
        first = [*(["regimen"] if len(self.regimens) > 1 else []), *(["draw"] if self.draws > 1 else [])]
        table = table.assign(regimen=name) if "regimen" in first else table
        return table[[*first, *(c for c in table if c not in first)]]

    def _frame_of(self, name: str, arm: Arm) -> pd.DataFrame:
        values, made = self._values_of(name, arm)
        times = arm.times
        # subjects first, then draws, then rows
        real = np.broadcast_to(np.isfinite(times)[:, None], (len(times), made, times.shape[1]))
        who, draw, row = np.nonzero(real)
        columns = {"regimen": np.full(len(who), name, object), "ID": self.ids[who], "draw": draw, "TIME": times[who, row]}
        return pd.DataFrame(columns | {endpoint: np.swapaxes(array[:made], 0, 1)[real] for endpoint, array in values.items()})

    def _values_of(self, name: str, arm: Arm) -> tuple[dict[str, Float[np.ndarray, "D N n"]], int]:
        """All profiles of an arm by endpoint, and how many draws of them were made."""
        values = {endpoint: np.empty((self.draws, *arm.times.shape)) for endpoint in self.endpoints}

        def keep(piece: Piece) -> None:
            for endpoint, array in values.items():
                array[piece.draws, piece.subjects] = piece.values[endpoint]

        with Progress(self.progress, f"simulating {name}") as line:
            made = self.visit(arm, arm.problem, keep, line, residual=self.residual)
        return values, made

    def bands(
        self, probabilities: Sequence[float] = (0.05, 0.5, 0.95), *, level: float = 0.9, by: Literal["draw", "ID"] = "draw"
    ) -> pd.DataFrame:
        """Quantiles of the profiles at every time: a row per regimen, endpoint, TIME and probability.

        `by="draw"`: over the subjects of each draw; `value` is their median over the draws, `lower` and `upper` the middle
        `level` of them: how uncertain the quantile is. `by="ID"`: over the draws of each subject, a row per ID, too.

        Raises MethodError for other values, and where the subjects are seen at times of their own.
        """
        _check_probabilities(probabilities, level, by)
        if self.times is None:
            raise MethodError("bands need common times: give times= to nm.simulate.")
        tables = [self._bands_of(name, arm, np.asarray(probabilities, float), level, by) for name, arm in self.arms.items()]
        return pd.concat(tables, ignore_index=True)

    def _bands_of(self, name: str, arm: Arm, probabilities: np.ndarray, level: float, by: str) -> pd.DataFrame:
        blocks: dict[str, list[np.ndarray]] = {endpoint: [] for endpoint in self.endpoints}
        waiting: list[Piece] = []

        def keep(piece: Piece) -> None:
            waiting.append(piece)
            if piece.subjects.stop < len(self.ids):
                return
            for endpoint, kept in blocks.items():
                whole = np.concatenate([p.values[endpoint] for p in waiting], axis=1)
                kept.append(whole if by == "ID" else _quantiles(whole, probabilities))
            waiting.clear()

        with Progress(self.progress, f"simulating {name}") as line:
            self.visit(arm, arm.problem, keep, line, residual=self.residual)
        rows = []
        for endpoint, kept in blocks.items():
            found = np.concatenate(kept)
            if by == "ID":
                for i, who in enumerate(self.ids):
                    rows.append(_long(quantile(found[:, i], probabilities, 0), self.times, probabilities, endpoint, ID=who))
                continue
            tails = quantile(found, [0.5, 0.5 - level / 2, 0.5 + level / 2], 0)
            rows.append(_long(tails[0], self.times, probabilities, endpoint, lower=tails[1].ravel(), upper=tails[2].ravel()))
        table = pd.concat(rows, ignore_index=True)
        table.insert(0, "regimen", name)
        return table


def _quantiles(values: Float[np.ndarray, "d N T"], probabilities: np.ndarray) -> Float[np.ndarray, "d k T"]:
    """Over the subjects of each draw."""
    return np.moveaxis(quantile(values, probabilities, 1), 0, 1)


def quantile(values: np.ndarray, probabilities: Any, axis: int) -> np.ndarray:
    """NumPy's; between two infinities of one sign, where that has no answer, the infinity (logarithms of 0 before a dose)."""
    with np.errstate(invalid="ignore"):
        found = np.quantile(values, probabilities, axis=axis)
    unknown = np.isnan(found)
    return np.where(unknown, np.quantile(values, probabilities, axis=axis, method="nearest"), found) if unknown.any() else found


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items())


def _long(values: Float[np.ndarray, "k T"], times: Any, probabilities: np.ndarray, endpoint: str, **columns: Any) -> pd.DataFrame:
    who = {name: columns.pop(name) for name in ("ID",) if name in columns}
    return pd.DataFrame(
        {
            **who,
            "endpoint": endpoint,
            "TIME": np.tile(times, len(probabilities)),
            "probability": np.repeat(probabilities, len(times)),
            "value": values.ravel(),
            **columns,
        }
    )


def _check_probabilities(probabilities: Any, level: Any, by: Any) -> None:
    values = check_numbers("probabilities", probabilities, "numbers from 0 to 1")
    if np.ndim(probabilities) != 1 or len(values) == 0 or not np.all((values >= 0) & (values <= 1)):
        raise MethodError(f"probabilities must be numbers from 0 to 1, got {probabilities!r}.")
    if not is_number(level) or not 0 < level < 1:
        raise MethodError(f"level must be between 0 and 1, got {level!r}.")
    if not isinstance(by, str) or by not in ("draw", "ID"):
        raise MethodError(f"by must be 'draw' or 'ID', got {by!r}.")
