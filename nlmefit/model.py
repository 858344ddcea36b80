"""`nm.Model`: the declared model with its engine."""

from collections.abc import Callable

import pandas as pd

from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.population import PopulationModel, check_constant_dynamics
from nlmefit.program import population_program


class Model(AbstractModel, abstract=True):
    """A population model: y_ij ~ p(y | observe(t_ij, A_i(t_ij), P_i)),  P_i = h(mu(x_i) + eta_i),  eta_i ~ N(0, Omega).

    Subclass it and declare: individual parameters (`nm.LogNormal`, `nm.Normal`, `nm.LogitNormal`), fixed effects
    (`nm.Theta`), `omega = nm.Blocks(...)`, `dynamics = nm.OneCompartment(...)`, a residual model per endpoint, and the
    method `observe(self, t, A, p)` that returns a prediction (or a NumPyro distribution) per endpoint. Optional:
    `individual(self, theta, eta, x)` in place of the declared form of the parameters, `dosing(self, p)`.

    `observe` gets all of a subject's times at once: `t` and the amounts in `A` are vectors (n,), the individual parameters in
    `p` scalars (vectors where a covariate that changes in time enters them); write it elementwise, as for one time.

    The methods are compiled once for each class and its constants: `self.name` may be read (and differ between instances),
    but a global that a method reads is frozen at the first fit.

    An instance is a value: `Warfarin(CL=nm.LogNormal(0.13, iiv=0.3))` is a variant, `model.at({"CL": 0.14})` the same
    model at other values, `model.values` all of them by name.

    Raises ModelError, at class definition, for every name that does not exist and every value out of range.
    """

    def program(self, data: pd.DataFrame | Subjects) -> Callable[[], None]:
        """The model of all subjects as a NumPyro program without arguments, for NumPyro's handlers, NUTS and SVI.

        Sites: every free population parameter by name (with its prior; `population.default_prior` states the defaults),
        `eta_base` (N, q) standard normal, `eta` (N, q) deterministic, and the endpoints. Raises DataError for unusable data.
        """
        subjects = Subjects.of(data, self)
        check_constant_dynamics(self, subjects)
        return population_program(PopulationModel(self), subjects.subjects, len(subjects))
