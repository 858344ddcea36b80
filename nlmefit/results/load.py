"""`nm.load`: a fit from the file that `fit.save` wrote."""

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nlmefit.core import archive
from nlmefit.core.errors import ModelError, NlmefitError
from nlmefit.declare.model import AbstractModel
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.serialization import own_names
from nlmefit.generative.serialization import restored as restored_model
from nlmefit.generative.trainer import GenerativeFit
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.results.fit import Fit
from nlmefit.results.saved import SavedModel
from nlmefit.results.stored import restored

LINES_SHOWN = 12


def load(path: str | os.PathLike[str], model: AbstractModel | AbstractLatentModel | AbstractGenerative | None = None) -> Any:
    """The fit that `fit.save(path)` wrote: it prints the same, and its tables are the same.

    **Arguments:** `model` the model that was fitted, at whatever values: the fit's model is then that one at the estimates, and
    `nm.predict`, `nm.evaluate` and the like work. Without it the model is text and values, which is enough for the tables and
    for `start=`. A `gen.GenerativeFit` comes back whole, with its networks; only where these are of classes or functions of your
    own, `model` is needed, untrained, to take them from.

    The file holds no code, and loading it runs none. It does not hold the data: `fit.provenance` has their SHA-256, the number
    of rows, and the versions of the packages that made the fit.

    Raises NlmefitError where there is no such file, or it is of another kind, of a newer version or damaged; ModelError where
    `model` is another model than the one that was fitted, with the differences.
    """
    saved = archive.read(path)
    if "generative" in saved:
        return _trained(saved["generative"], path, model)
    try:
        fit = Fit(**restored(saved))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NlmefitError(f"{path} is an nlmefit archive, but not of a fit ({error!r}).") from error
    return fit if model is None else replace(fit, model=_attached(fit.model, model))


def _trained(saved: Any, path: Any, model: Any) -> GenerativeFit:
    """A generative model with its networks; ModelError where `model` is of another class."""
    try:
        name = str(saved["model"]["class"])
        if model is not None and type(model).__name__ != name:
            raise ModelError(f"model= must be the model that was fitted, {name}, got {type(model).__name__}.")
        return GenerativeFit.restored(saved, {} if model is None else own_names(model))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NlmefitError(f"{path} is an nlmefit archive, but not of a fit ({error!r}).") from error


def _attached(saved: SavedModel, model: Any) -> Any:
    """`model` at the saved values; ModelError where it is another model."""
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class; pass an instance: model={model.__name__}().")
    if isinstance(model, AbstractModel) and saved.description["declared"]:
        return _declared(saved, model)
    if isinstance(model, AbstractLatentModel) and not isinstance(model, SavedModel) and not saved.description["declared"]:
        return _latent(saved, model)
    raise ModelError(f"model= must be the model that was fitted, {saved.name}, got {type(model).__name__}.")


def _declared(saved: SavedModel, model: AbstractModel) -> AbstractModel:
    model = model.with_levels(saved.description.get("levels", {}))  # those of the data that it was fitted to
    population = model.population()
    _check(saved, _names("population parameters", saved.values, population))
    fixed = [name for name, p in population.items() if p.fixed]
    _check(saved, _names("fixed parameters", saved.description["fixed"], fixed))
    result = model.at(saved.values)
    # The first line is the class's name and description: another name does not make another model.
    before, now = (text.splitlines()[1:] for text in (saved.equations(), result.equations()))
    changes = [line for line in difflib.ndiff(before, now) if line[0] in "-+"]
    _check(saved, [*changes[:LINES_SHOWN], *(["..."] if len(changes) > LINES_SHOWN else [])])
    return result


def _latent(saved: SavedModel, model: AbstractLatentModel) -> Any:
    if type(model).__name__ != saved.name:
        _check(saved, [f"the model's class: {saved.name} in the file, {type(model).__name__} given"])
    _check(saved, _names("random effects", saved.description["effects"], model.eta_names()))
    if saved.description.get("generative"):  # with its networks
        return restored_model(saved.description["generative"], own_names(model))
    theta = saved.description["theta"]
    _check(saved, _names("population parameters", saved.values, model.report(theta)))
    return model.at(theta)


def _names(what: str, saved: Iterable[str], given: Iterable[str]) -> list[str]:
    saved, given = list(saved), list(given)
    lacking = [name for name in saved if name not in given]
    added = [name for name in given if name not in saved]
    return [f"{what} only {where}: {', '.join(names)}" for where, names in (("in the file", lacking), ("given", added)) if names]


def _check(saved: SavedModel, differences: list[str]) -> None:
    if differences:
        listed = "\n  ".join(differences)
        raise ModelError(f"model= is not the {saved.name} that was fitted (- in the file, + given):\n  {listed}")
