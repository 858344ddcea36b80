"""Units of times, predictions and exposures, as far as the model states them."""

import re
from collections.abc import Iterable
from typing import Any

TIME_UNITS = ("h", "min", "d", "day", "days", "hr", "hour", "hours", "week", "weeks", "s", "month", "months", "year", "years")


def time_unit(model: Any) -> str:
    """The unit of time on which those of the model's parameters (1/h, L/h) agree; empty where they do not."""
    units = [p.unit for p in model.population().values() if p.unit]
    found = {last for unit in units if (last := re.split(r"[/*· ]", unit)[-1]) in TIME_UNITS and "/" in unit}
    return found.pop() if len(found) == 1 else ""


def endpoint_unit(model: Any, endpoint: str) -> str:
    """The unit that the residual model states; empty for an output without one."""
    residual = model.specification.residuals.get(endpoint)
    return "" if residual is None else residual.unit


def exposure_units(model: Any, endpoints: Iterable[str]) -> dict[str, dict[str, str]]:
    """By endpoint, the units of the exposures that have one."""
    time = time_unit(model)
    found = {}
    for endpoint in endpoints:
        unit = endpoint_unit(model, endpoint)
        area = f"{unit}·{time}" if unit and time else ""
        found[endpoint] = {"AUC": area, "Tmax": time, **dict.fromkeys(("Cmax", "Cmin", "Ctrough"), unit)}
    return found
