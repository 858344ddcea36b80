"""`nm.Model`: the declared model with its engine."""

from collections.abc import Callable

import pandas as pd

from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.latent.program import population_program
from nlmefit.population.latent import PopulationModel


class Model(AbstractModel, abstract=True):
    """A population model: y_ij ~ p(y | observe(t_ij, A_i(t_ij), P_i)),  P_i = h(mu(x_i) + eta_i),  eta_i ~ N(0, Omega).

    Subclass it and declare: individual parameters (`nm.LogNormal`, `nm.Normal`, `nm.LogitNormal`), fixed effects (`nm.Theta`),
    `omega = nm.Blocks(...)`, `flow = nm.Flow(...)`, a residual model per endpoint, and the method `observe(self, t, A, p)` that
    returns a prediction (or a NumPyro distribution) per endpoint. The structural model is a value, `dynamics =
    nm.OneCompartment(...)`, or the method `dynamics(self, t, A, p)` that returns dA/dt by compartment; doses are added to it.
    Optional: `initial(self, p)` (amounts at the first record and after a reset, 0 where none is given), `dosing(self, p)` (lag,
    bioavailability, rate, duration), `individual(self, theta, eta, x)` in place of the declared form of the parameters,
    `occasion = "OCC"` (the column of the occasions on which `iov=` effects are new), `solver = nm.RungeKutta(...)` (else the
    choice is automatic).

    Every method gets one record of one subject: `t`, the amounts in `A`, individual parameters and covariates in `p` are numbers,
    and a sum inside of a method is over what it names, never over the records.

    The methods are compiled once for all that they are made of: their code, `self.name` (which may differ between instances),
    globals and closures that they read, to the last bit. Change any of them, and the next call computes the changed model.

    An instance is a value: `Warfarin(CL=nm.LogNormal(0.13, iiv=0.3))` is a variant, `model.at({"CL": 0.14})` the same
    model at other values, `model.values` all of them by name.

    Raises ModelError, at class definition, for every name that does not exist and every value out of range.
    """

    def program(self, data: pd.DataFrame | Subjects) -> Callable[[], None]:
        """The model of all subjects as a NumPyro program without arguments, for NumPyro's handlers, NUTS and SVI.

        Sites: every free population parameter by name (with its prior; `priors.default_prior` states the defaults),
        `eta_base` (N, q) standard normal, `eta` (N, q) deterministic, and the endpoints. Raises DataError for unusable data.
        """
        subjects = Subjects.of(data, self)
        return population_program(PopulationModel.of(self, subjects), subjects.subjects, len(subjects))
