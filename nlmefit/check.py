"""`nm.check`: everything that is wrong or noteworthy in a data set, as a table of coded findings."""

from collections.abc import Mapping

import pandas as pd

from nlmefit.data.censoring import Blq
from nlmefit.data.checks import findings
from nlmefit.data.findings import table
from nlmefit.data.needs import needs_of
from nlmefit.data.records import read_records
from nlmefit.data.subjects import Subjects
from nlmefit.model import Model
from nlmefit.population import unsolvable
from nlmefit.shown import findings as shown_findings


def check(df: pd.DataFrame, model: Model, columns: Mapping[str, str] | None = None, *, blq: Blq = "M3") -> pd.DataFrame:
    """Findings about `df` as data for `model`: code, severity, rows, subject, what, fix. Empty when all is well.

    E codes are errors, with which `nm.fit` refuses the data; W codes are warnings. Rows count from 0. `blq` as in
    `nm.Subjects.from_frame`.
    """
    needs = needs_of(model)
    found = findings(read_records(df, needs.columns, columns), needs, blq)
    if not any(f.severity == "error" for f in found):
        found = [*unsolvable(model, Subjects.from_frame(df, model, columns, blq=blq)), *found]
    return shown_findings(table(found))
