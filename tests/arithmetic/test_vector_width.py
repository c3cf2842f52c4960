import os
import subprocess
import sys
from pathlib import Path

import formula_numbers
import numpy as np


def test_sums_and_coefficients_do_not_depend_on_the_width_of_vectors(tmp_path: Path):
    script, file = Path(formula_numbers.__file__), tmp_path / "numbers.npz"
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    narrow = {
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "NUMBA_CPU_NAME": "generic",
    }
    path = os.pathsep.join([str(script.parent), str(script.parents[2]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, script, file], env=os.environ | narrow | {"PYTHONPATH": path}, check=True)
    here, there = formula_numbers.compute(), np.load(file)
    assert here.keys() == set(there)
    for name, numbers in here.items():
        # Elsewhere a processor that multiplies and adds in one step rounds once less: 1 ulp of a sum below 8.
        atol = 0.0 if name.startswith("exact") else 2.0**-21
        np.testing.assert_allclose(numbers, there[name], rtol=0, atol=atol, err_msg=name)
