"""Published values, outside of the project: `NLMEFIT_REFERENCE` names their folder; without it these tests are skipped."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

FOLDER = os.environ.get("NLMEFIT_REFERENCE")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents and not FOLDER:
            item.add_marker(pytest.mark.skip(reason="NLMEFIT_REFERENCE names no folder of published values"))


class Reference:
    """The folder of published values."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cases = {c["id"]: c for c in json.loads((folder / "cases.json").read_text())["cases"]}
        self.peers = {f["fit"]: f for f in json.loads((folder / "peers.json").read_text())["fits"]}

    def run(self, case: str, method: str) -> dict:
        return next(run for run in self.cases[case]["runs"] if run["method"] == method)

    def data(self, case: str) -> pd.DataFrame:
        return self.file(self.cases[case]["dataset"][0])

    def file(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / name)


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference(Path(FOLDER))
