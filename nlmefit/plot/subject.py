"""What a figure is of: the diagnostics of a fit, made here where a fit is given."""

from nlmefit.diagnose.diagnose import Diagnostics, diagnose
from nlmefit.errors import NlmefitError
from nlmefit.results import Fit
from nlmefit.saved import model_title


def diagnostics_of(given: Diagnostics | Fit) -> Diagnostics:
    """Raises NlmefitError for anything else, and as `nm.diagnose` does."""
    if isinstance(given, Diagnostics):
        return given
    if isinstance(given, Fit):
        return diagnose(given)
    raise NlmefitError(f"the figure is of a fit or of nm.diagnose(fit), got {type(given).__name__}.")


def title_of(what: str, fit: Fit) -> str:
    return f"{what}: {model_title(fit.model)}, {fit.method.name}"
