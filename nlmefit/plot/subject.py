"""What a figure is of: the diagnostics of a fit, made here where a fit is given."""

import pandas as pd

from nlmefit.core.errors import NlmefitError
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import Diagnostics, diagnose
from nlmefit.results.fit import Fit
from nlmefit.results.saved import model_title


def diagnostics_of(given: Diagnostics | Fit, data: pd.DataFrame | Subjects | None = None) -> Diagnostics:
    """Raises NlmefitError for anything else, and as `nm.diagnose` does."""
    if isinstance(given, Diagnostics):
        if data is not None:
            raise NlmefitError("these diagnostics are of their own data; give data= with a fit, or to nm.diagnose.")
        return given
    if isinstance(given, Fit):
        return diagnose(given, data)
    raise NlmefitError(f"the figure is of a fit or of nm.diagnose(fit), got {type(given).__name__}.")


def title_of(what: str, fit: Fit) -> str:
    return f"{what}: {model_title(fit.model)}, {fit.method.name}"
