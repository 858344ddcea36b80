"""Two compartments, repeated infusions, 120 subjects; starts off the simulated truth (CL 4, V1 70, Q 4, V2 40)."""

import nlmefit as nm


class TwoCompartmentInfusion(nm.Model):
    """Intravenous infusions, two compartments, proportional error."""

    CL = nm.LogNormal(3.0, iiv=0.4, unit="L/h")
    V1 = nm.LogNormal(60.0, iiv=0.4, unit="L")
    Q = nm.LogNormal(3.0, iiv=0.4, unit="L/h")
    V2 = nm.LogNormal(50.0, iiv=0.4, unit="L")

    dynamics = nm.TwoCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.3)
