"""`nm.check`: everything that is wrong or noteworthy in a data set, as a table of coded findings."""

from collections.abc import Mapping
from typing import Any, get_args

import pandas as pd

from nlmefit.core.errors import DataError
from nlmefit.core.options import check_word
from nlmefit.core.shown import findings as shown_findings
from nlmefit.data.censoring import Blq
from nlmefit.data.checks import design_findings, findings, is_design
from nlmefit.data.findings import table
from nlmefit.data.needs import needs_of
from nlmefit.data.records import read_records
from nlmefit.data.subjects import Subjects
from nlmefit.population.latent import unsolvable
from nlmefit.population.model import Model


def check(df: Any, model: Model, columns: Mapping[str, str] | None = None, *, blq: Blq = "M3") -> pd.DataFrame:
    """Findings about the table `df` (of pandas, polars, pyarrow) as data for `model`: code, severity, rows, subject, what, fix.
    Empty when all is well.

    E codes are errors, with which `nm.fit` refuses the data; W codes are warnings. Rows count from 0. `blq` as in
    `nm.Subjects.from_frame`. A table without DV is taken to be for prediction and simulation, which W212 says.
    """
    check_word("blq", blq, get_args(Blq), "rule", DataError)
    needs = needs_of(model)
    records = read_records(df, needs, columns)
    design = is_design(records)
    found = findings(records, needs, blq, observations=not design)
    if design:
        found += design_findings(records)
    if not any(f.severity == "error" for f in found):
        laid_out = Subjects.from_frame(df, model, columns, blq=blq, every_record=design)
        found = [*unsolvable(model.with_levels(laid_out.needs.levels), laid_out), *found]
    return shown_findings(table(found))
