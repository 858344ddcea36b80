"""Forked processes say why they cannot compute; the user's own settings of JAX stay."""

import os
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import multiprocessing as mp, pandas as pd
import nlmefit as nm

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
        return len(nm.simulate(M(), subjects=2, times=[1.0], progress=False).frame())
    except nm.ProcessError as error:
        return str(error)
"""


def printed(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_says_why_it_cannot_compute():
    found = printed(
        """
        if __name__ == "__main__":
            nm.evaluate(M(), DATA, nm.Laplace())
            with mp.get_context("fork").Pool(2) as pool:
                print(*pool.map(work, ["evaluate", "predict", "simulate"]), sep="\\n")
        """
    )
    assert found.count('get_context("spawn")') == 3


def test_the_users_own_cache_stays_as_it_is(tmp_path):
    said = "import jax; print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)"
    own = printed(said, JAX_COMPILATION_CACHE_DIR=str(tmp_path), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="7")
    assert own.split() == [str(tmp_path), "7.0"]
