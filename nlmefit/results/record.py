"""A fit as a record: what a method found, under the model's names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.data.reading import Reading
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.method import Found, Kind
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.status import Status
from nlmefit.latent.model import AbstractLatentModel


@dataclass(frozen=True)
class FitRecord:
    """The fields of `nm.Fit`. Tables, print and file are functions of it."""

    model: Any
    """The model at the estimates."""
    method: Any
    status: Status
    log_likelihood: float
    ofv: float
    estimates: pd.Series
    units: Mapping[str, str]
    fixed: tuple[str, ...]
    uncertainty: Uncertainty | None
    contributions: pd.DataFrame
    """By subject: ofv, log_likelihood, observations, converged, iterations."""
    eta: pd.DataFrame
    """Empirical-Bayes estimates of the random effects (modes), by subject."""
    eta_covariance: np.ndarray
    """Posterior covariance of eta by subject (N, q, q), from the inner Hessian."""
    individual: pd.DataFrame
    """Individual parameters at the modes, by subject (at the first record's covariates)."""
    omega: pd.DataFrame
    """Omega as a covariance matrix."""
    history: pd.DataFrame
    conventions: Mapping[str, str]
    seconds: Mapping[str, float]
    findings: tuple[Any, ...] = ()
    latent: AbstractLatentModel | None = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    kind: Kind = "approximation"
    """What `log_likelihood` says of log p(y | theta)."""
    mc_se: float = 0.0
    """Monte Carlo standard error of `log_likelihood`."""
    found: Found | None = field(default=None, repr=False)
    """The method's answer on its own scale: free coordinates, whitened random effects, their posterior."""
    occasions: pd.DataFrame | None = field(default=None, repr=False)
    """What each subject's 1st, 2nd, ... occasion is called, by ID; None where the model has none."""
    key: np.ndarray | None = field(default=None, repr=False)
    """The random key that decided every draw: `nm.fit(..., key=jax.numpy.asarray(fit.key))` makes the same."""
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of a loaded fit: the versions of the packages that made it, the data's SHA-256 and number of rows."""

    @property
    def reading(self) -> Reading:
        """The rules by which the fit's data were read; every call that is given further data reads them so."""
        if isinstance(self.data, Subjects):
            return self.data.reading
        return Reading(**self.provenance.get("data", {}).get("reading", {}))
