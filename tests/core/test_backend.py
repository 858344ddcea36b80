"""Forked processes say why they cannot compute; the user's own settings of JAX stay."""

import os
import subprocess
import sys
import textwrap

import pytest

from nlmefit.core import backend

HEAD = """
import multiprocessing as mp, numpy as np, pandas as pd
import nlmefit as nm
from nlmefit import generative as gen

class M(nm.Model):
    b = nm.Normal(10.0, iiv=2.0)
    y = nm.Additive(1.0)

    def observe(self, t, A, p):
        return {"y": p.b}

DATA = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0.0, 1, 0], "DV": [9.0, 11, 10]})

def work(call):
    try:
        if call == "evaluate":
            return nm.evaluate(M(), DATA, nm.Laplace()).ofv
        if call == "predict":
            return len(nm.predict(M(), DATA))
        if call == "equations":
            return M().equations()
        if call == "log_prob":
            return float(PPCA.log_prob(X)[0])
        if call == "sample":
            return PPCA.sample(3, key=1).shape
        return len(nm.simulate(M(), subjects=2, times=[1.0], progress=False).frame())
    except nm.ProcessError as error:
        return str(error)
"""

CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def printed(folder, code, **environment):
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(code))
    inherited = {name: value for name, value in os.environ.items() if name not in CACHE}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=120, env=inherited | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@forks
def test_a_forked_process_says_why_it_cannot_compute(tmp_path):
    found = printed(
        tmp_path,
        """
        X = np.random.default_rng(1).normal(size=(40, 3))

        if __name__ == "__main__":
            nm.evaluate(M(), DATA, nm.Laplace())
            PPCA = nm.fit(gen.PPCA(1), X, gen.MaximumLikelihood()).model
            with mp.get_context("fork").Pool(1) as pool:
                print(*pool.map(work, ["evaluate", "predict", "simulate", "equations", "log_prob", "sample"]), sep="\\n")
        """,
    )
    assert found.count('get_context("spawn")') == 6


@forks
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_started_before_jax_or_afresh_compute(tmp_path, how):
    found = printed(
        tmp_path,
        f"""
        if __name__ == "__main__":
            if "{how}" == "spawn":
                nm.evaluate(M(), DATA, nm.Laplace())
            with mp.get_context("{how}").Pool(1) as pool:
                print(*pool.map(work, ["evaluate", "predict"]))
        """,
    )
    assert float(found.split()[0]) > 0 and found.split()[1] == "3"


def test_importing_starts_no_backend(tmp_path):
    assert printed(tmp_path, "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())") == "False\n"


def test_the_users_own_cache_stays_as_it_is(tmp_path):
    said = "import jax; print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)"
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "7"}
    assert printed(tmp_path, said, **environment).split() == [str(tmp_path), "7.0"]


def test_what_a_user_sets_of_the_cache_in_the_program_stays(tmp_path):
    """Before the package is imported, which makes its own settings where there are none."""
    code = """
    import subprocess, sys
    own = 'import jax; jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0); import nlmefit; print('
    own += "jax.config.jax_persistent_cache_min_compile_time_secs)"
    print(subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=True).stdout)
    """
    assert printed(tmp_path, code).split() == ["7.0"]


def test_what_a_user_says_to_xla_goes_before_the_packages_options(monkeypatch):
    read = backend.compiler_options.__wrapped__
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false --xla_backend_optimization_level=2")
    assert read() == {"xla_cpu_use_fusion_emitters": False}
    monkeypatch.delenv("XLA_FLAGS")
    assert read() == backend.QUICK_TO_COMPILE
