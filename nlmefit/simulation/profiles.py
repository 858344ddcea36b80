"""What `nm.simulate` returns: profiles by regimen, subject and draw, computed in pieces when asked for."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.data.epochs import Rule
from nlmefit.data.regimen import Regimen
from nlmefit.data.scenario import Scenario, scenario
from nlmefit.data.subjects import Subjects
from nlmefit.errors import MethodError
from nlmefit.estimate.problem import Problem
from nlmefit.model import Model
from nlmefit.population import PopulationModel
from nlmefit.progress import Progress
from nlmefit.simulation.replicates import Piece, pieces

LARGEST_FRAME = 50_000_000
"""Rows of a DataFrame beyond which it is refused."""


@dataclass(frozen=True)
class Arm:
    """One regimen: the subjects under it, laid out for the model."""

    problem: Problem
    scenario: Scenario
    latent: PopulationModel


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

    @property
    def draws(self) -> int:
        return len(self.u)

    @property
    def ids(self) -> np.ndarray:
        return self.people.ids if isinstance(self.people, Subjects) else self.people["ID"].to_numpy()

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.model.endpoints

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """By regimen, as seen at `times`."""
        return {name: self.arm(name, self.times) for name in self.regimens}

    def arm(self, regimen: str, times: np.ndarray | None, before: Sequence[float] = ()) -> Arm:
        """The subjects under that regimen, seen at other times (and just before doses at the times `before`)."""
        found = scenario(self.model, self.people, self.regimens[regimen], times, before=before, rule=self.rule)
        latent = PopulationModel.of(self.model, found.data)
        return Arm(Problem(latent, found.data), found, latent)

    def visit(self, problem: Problem, read: Callable[[Piece], None], line: Progress, *, residual: bool = False) -> int:
        """Shows `read` all draws of some arm's subjects, piece by piece, in the order of the draws. Returns how many draws are
        complete: fewer than all where Ctrl-C was pressed."""
        done = 0
        try:
            for piece in pieces(problem, self.u, self.key, self.eta, residual=residual):
                read(piece)
                done = piece.draws.stop if piece.subjects.stop == problem.size else done
                line.stage(f"draw {piece.draws.stop} of {self.draws}")
        except KeyboardInterrupt:
            if done == 0:
                raise
            warnings.warn(f"interrupted: these are {done} of {self.draws} draws.", stacklevel=4)
        return done

    def frame(self) -> pd.DataFrame:
        """All profiles: a row per regimen, ID, draw and TIME with a column per endpoint.

        Raises MethodError beyond 50 million rows: `bands` and `nm.exposure` take any number.
        """
        arms = self.arms
        size = sum(self.draws * int(np.isfinite(arm.scenario.times).sum()) for arm in arms.values())
        if size > LARGEST_FRAME:
            raise MethodError(
                f"the profiles are {size:,} rows, too many for a DataFrame. Use .bands() or nm.exposure(simulation), or fewer "
                "times, draws or subjects."
            )
        return pd.concat([self._frame_of(name, arm) for name, arm in arms.items()], ignore_index=True)

    def _frame_of(self, name: str, arm: Arm) -> pd.DataFrame:
        times = arm.scenario.times
        values = {endpoint: np.empty((self.draws, *times.shape)) for endpoint in self.endpoints}

        def keep(piece: Piece) -> None:
            for endpoint, array in values.items():
                array[piece.draws, piece.subjects] = piece.values[endpoint]

        with Progress(self.progress, f"simulating {name}") as line:
            made = self.visit(arm.problem, keep, line, residual=self.residual)
        # subjects first, then draws, then rows
        real = np.broadcast_to(np.isfinite(times)[:, None], (len(times), made, times.shape[1]))
        who, draw, row = np.nonzero(real)
        columns = {"regimen": np.full(len(who), name, object), "ID": self.ids[who], "draw": draw, "TIME": times[who, row]}
        return pd.DataFrame(columns | {endpoint: np.swapaxes(array[:made], 0, 1)[real] for endpoint, array in values.items()})

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
            self.visit(arm.problem, keep, line, residual=self.residual)
        rows = []
        for endpoint, kept in blocks.items():
            found = np.concatenate(kept)
            if by == "ID":
                for i, who in enumerate(self.ids):
                    rows.append(
                        _long(np.quantile(found[:, i], probabilities, axis=0), self.times, probabilities, endpoint, ID=who)
                    )
                continue
            tails = np.quantile(found, [0.5, 0.5 - level / 2, 0.5 + level / 2], axis=0)
            rows.append(_long(tails[0], self.times, probabilities, endpoint, lower=tails[1].ravel(), upper=tails[2].ravel()))
        table = pd.concat(rows, ignore_index=True)
        table.insert(0, "regimen", name)
        return table


def _quantiles(values: Float[np.ndarray, "d N T"], probabilities: np.ndarray) -> Float[np.ndarray, "d k T"]:
    """Over the subjects of each draw."""
    return np.moveaxis(np.quantile(values, probabilities, axis=1), 0, 1)


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
    values = np.asarray(probabilities, float)
    if values.ndim != 1 or len(values) == 0 or not np.all((values >= 0) & (values <= 1)):
        raise MethodError(f"probabilities must be numbers from 0 to 1, got {probabilities!r}.")
    if not 0 < level < 1:
        raise MethodError(f"level must be between 0 and 1, got {level!r}.")
    if by not in ("draw", "ID"):
        raise MethodError(f"by must be 'draw' or 'ID', got {by!r}.")
