"""By what rules records are read: what a fit remembers of its data, and applies to every further data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import pandas as pd

from nlmefit.data.censoring import Blq
from nlmefit.data.epochs import Rule
from nlmefit.data.frames import if_table
from nlmefit.data.records import all_missing


@final
@dataclass(frozen=True)
class Reading:
    """The rules of `nm.Subjects.from_frame`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """From the user's names to standard ones."""
    covariates: Rule = "nocb"
    """How covariates run between records."""
    blq: Blq = "M3"
    """What is made of observations below a limit."""

    def of(self, data: Any) -> "Reading":
        """The same for further data, which need not have all of the columns (DV, where it is to be predicted)."""
        given = getattr(data, "columns", ())
        return Reading({name: standard for name, standard in self.columns.items() if name in given}, self.covariates, self.blq)

    def observed(self, data: pd.DataFrame) -> list[Any]:
        """The columns of a table that hold DV."""
        return [c for c in data if str(c).upper() == "DV" or str(self.columns.get(str(c))).upper() == "DV"]

    def is_design(self, data: Any) -> bool:
        """Whether a table holds nothing observed: no DV, or none that is not missing."""
        data = if_table(data)
        return isinstance(data, pd.DataFrame) and all(all_missing(data[c]) for c in self.observed(data))
