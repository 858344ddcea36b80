"""One file for tables, arrays and text: a zip of JSON and NumPy's .npy. Reading it runs no code.

    manifest.json     the format, its version, and a SHA-256 of every other member
    document.json     the content, nested; an array stands in it as {"@array": member}, a table as {"@frame": ...}
    arrays/0.npy ...  the arrays

A file is written under another name in the same folder and then takes the place of the old one: whoever interrupts that
keeps the old one.
"""

import hashlib
import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.core.errors import NlmefitError
from nlmefit.core.options import check_path

FORMAT = "nlmefit archive"
VERSION = 1
TEXT_TYPES = ("object", "str", "string")
"""dtypes of columns whose values stand in the JSON; other columns are arrays of numbers or truth values."""
LARGEST, RATIO = 1 << 28, 50
"""Bytes that a file may always take when unpacked, and how many times its size a larger one may: numbers compress little."""
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The members' date, so that equal contents make equal files."""


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content`, a dictionary of text, numbers, None, arrays, Series, DataFrames, and lists and dictionaries of those.

    Raises NlmefitError where `path` is a folder or lies in none, where it cannot be written (an older file is then as it was),
    and for content of another type.
    """
    target = _target(path)
    members: dict[str, bytes] = {}
    members["document.json"] = json.dumps(_packed(content, members, "")).encode()
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    manifest = json.dumps({"format": FORMAT, "version": VERSION, "sha256": checksums}, indent=1).encode()
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            _zip(file, {"manifest.json": manifest, **members})
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise NlmefitError(
            f"{path} could not be written: {error.strerror or error}. What was there before is unchanged."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write` was given; tuples come back as lists.

    Raises NlmefitError where there is no such file, where it is of another kind or a newer version, and where it is damaged.
    """
    source = check_path(path)
    if source.is_dir():
        raise NlmefitError(f"{path} is a folder; name the file in it.")
    if not source.exists():
        raise NlmefitError(f"there is no file {path}.")
    try:
        with zipfile.ZipFile(source) as file:
            _check_size(file, source)
            return _unzipped(file, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise NlmefitError(f"{path} is not a file that nlmefit saved, or it is cut off or damaged ({error}).") from error
    except OSError as error:
        raise NlmefitError(f"{path} could not be read: {error.strerror or error}.") from error


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to write, behind links; NlmefitError where there can be none."""
    target = Path(os.path.realpath(check_path(path)))
    if target.is_dir():
        raise NlmefitError(f"{path} is a folder; name a file in it.")
    if not target.parent.is_dir():
        raise NlmefitError(f"the folder {target.parent} does not exist; make it first.")
    return target


def _zip(file: Any, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), data, zipfile.ZIP_DEFLATED)


def _check_size(file: zipfile.ZipFile, path: Path) -> None:
    """NlmefitError where the members are far larger than what `write` makes of a file of that size."""
    size = sum(member.file_size for member in file.infolist())
    if size > max(LARGEST, RATIO * path.stat().st_size):
        raise NlmefitError(
            f"{path} would take {size / 2**20:,.0f} MiB when unpacked, {size / path.stat().st_size:,.0f} times its size: nlmefit "
            "saved no such file, and it is not read."
        )


def _unzipped(file: zipfile.ZipFile, path: Any) -> dict[str, Any]:
    damaged = f"{path} is damaged: "
    try:
        manifest = json.loads(file.read("manifest.json"))
        kind, version, checksums = manifest["format"], int(manifest["version"]), dict(manifest["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise NlmefitError(f"{path} is not a file that nlmefit saved: it has no manifest of one.") from error
    if kind != FORMAT:
        raise NlmefitError(f"{path} is not a file that nlmefit saved: its format is {kind!r}.")
    if version > VERSION:
        raise NlmefitError(f"{path} has version {version} of the format, this nlmefit reads up to {VERSION}; update nlmefit.")
    members = {}
    for name, checksum in checksums.items():
        if name not in file.namelist():
            raise NlmefitError(f"{damaged}{name} is missing.")
        members[name] = file.read(name)
        if hashlib.sha256(members[name]).hexdigest() != checksum:
            raise NlmefitError(f"{damaged}{name} does not have its checksum.")
    try:
        found: dict[str, Any] = _unpacked(json.loads(members["document.json"]), members)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NlmefitError(f"{damaged}its content cannot be read ({error!r}).") from error
    return found


def _packed(value: Any, members: dict[str, bytes], where: str) -> Any:
    """`value` as JSON; its arrays go to `members`. `where` names its place, for errors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _packed(value.item(), members, where)
    if isinstance(value, np.ndarray):
        return {"@array": _stored(value, members, where)}
    if isinstance(value, pd.Series):
        return {"@series": [_column(value, members, where), _index(value.index, members, where), _packed(value.name, {}, where)]}
    if isinstance(value, pd.DataFrame):
        columns = [_column(value.iloc[:, i], members, f"{where}.{name}") for i, name in enumerate(value.columns)]
        return {"@frame": [columns, _index(value.index, members, where), _index(value.columns, members, where)]}
    if isinstance(value, list | tuple):
        return [_packed(v, members, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) and not key.startswith("@") for key in value):
        return {key: _packed(v, members, f"{where}.{key}") for key, v in value.items()}
    raise NlmefitError(f"{where.lstrip('.')} cannot be saved: {type(value).__name__} is neither text, number, array nor table.")


def _stored(array: np.ndarray, members: dict[str, bytes], where: str) -> str:
    if array.dtype.kind not in "biufU":
        raise NlmefitError(f"{where.lstrip('.')} cannot be saved: an array of {array.dtype}.")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    name = f"arrays/{len(members)}.npy"
    members[name] = buffer.getvalue()
    return name


def _column(values: pd.Series | pd.Index, members: dict[str, bytes], where: str) -> Any:
    dtype = str(values.dtype)
    if dtype not in TEXT_TYPES and not isinstance(values.dtype, np.dtype):
        raise NlmefitError(f"{where.lstrip('.')} cannot be saved: a column of {dtype}; convert it to numbers or text.")
    if dtype not in TEXT_TYPES:
        return {"@array": _stored(values.to_numpy(), members, where)}
    return [dtype, [_packed(v, {}, where) for v in values.tolist()]]


def _index(index: pd.Index, members: dict[str, bytes], where: str) -> Any:
    return [_column(index, members, f"{where}.index"), _packed(index.name, {}, where)]


def _unpacked(value: Any, members: Mapping[str, bytes]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, members) for v in value]
    if not isinstance(value, dict):
        return value
    if "@array" in value:
        return np.lib.format.read_array(io.BytesIO(members[value["@array"]]), allow_pickle=False)
    if "@series" in value:
        column, index, name = value["@series"]
        series = _read_column(column, members)
        return series.set_axis(_read_index(index, members)).rename(name)
    if "@frame" in value:
        columns, index, names = value["@frame"]
        frame = pd.DataFrame(dict(enumerate(_read_column(c, members) for c in columns)))
        rows = _read_index(index, members)
        frame = frame if columns else pd.DataFrame(index=rows)
        return frame.set_axis(rows, axis=0).set_axis(_read_index(names, members), axis=1)
    return {key: _unpacked(v, members) for key, v in value.items()}


def _read_column(column: Any, members: Mapping[str, bytes]) -> pd.Series:
    if isinstance(column, dict):
        return pd.Series(_unpacked(column, members))
    dtype, values = column
    if dtype not in TEXT_TYPES:
        raise ValueError(f"a column of {dtype}")
    return pd.Series(values, dtype=dtype)


def _read_index(index: Any, members: Mapping[str, bytes]) -> pd.Index:
    column, name = index
    series = _read_column(column, members)
    return pd.Index(series.array, dtype=series.dtype, name=name)
