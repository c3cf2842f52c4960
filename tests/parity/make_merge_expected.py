"""Write merge_expected.json: what mergekit 0.1.5 makes of the tensors of tests/helpers/parity_tensors.py.

It runs in an environment of its own and needs nothing of this repository:

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5 torch==2.13.0
    HF_HUB_OFFLINE=1 PYTHONPATH=tests/helpers /tmp/mergekit/bin/python tests/parity/make_merge_expected.py
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods import merge_tensors
from parity_tensors import SHAPES, make_inputs, summarise

THREE = {"weights": [0.2, 0.5, 0.6]}
TWO = {"weights": [1.0, 3.0]}
RATHER_FEW = {"density": [0.5, 0.3, 0.8]}
ALL = {"density": [1.0, 1.0, 1.0]}
ROW_WISE = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
MIDDLE = RATHER_FEW | {"gamma": [0.1, 0.2, 0.05]}

# parameters: of the merge. own: of each candidate. base: whether the method gets it.
CASES: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear", "weights": [0.2, 0.5, 0.3]},
    "slerp to a candidate": {"method": "slerp", "weights": [1.0], "parameters": {"t": 0.3}, "base": True},
    "nuslerp": {"method": "nuslerp", **TWO},
    "nuslerp row_wise": {"method": "nuslerp", **TWO, "parameters": ROW_WISE},
    "nuslerp not flattened": {"method": "nuslerp", **TWO, "parameters": {"nuslerp_flatten": False}},
    "nuslerp of task vectors": {"method": "nuslerp", **TWO, "base": True},
    "nuslerp row_wise of task vectors": {"method": "nuslerp", **TWO, "parameters": ROW_WISE, "base": True},
    "task_arithmetic": {"method": "task_arithmetic", **THREE, "parameters": {"lambda": 0.7}, "base": True},
    "ties": {"method": "ties", **THREE, "own": RATHER_FEW, "parameters": {"lambda": 0.9}, "base": True},
    "ties not normalised": {
        "method": "ties", **THREE, "own": RATHER_FEW, "parameters": {"normalize": False}, "base": True,
    },
    "dare_linear keeping all": {"method": "dare_linear", **THREE, "own": ALL, "base": True},
    "dare_ties keeping all": {"method": "dare_ties", **THREE, "own": ALL, "base": True},
    "della keeping all": {"method": "della", **THREE, "own": ALL | {"epsilon": [0.0] * 3}, "base": True},
    "della_linear keeping all": {"method": "della_linear", **THREE, "own": ALL | {"epsilon": [0.0] * 3}, "base": True},
    "breadcrumbs": {"method": "breadcrumbs", **THREE, "own": MIDDLE, "base": True},
    "breadcrumbs_ties": {"method": "breadcrumbs_ties", **THREE, "own": MIDDLE, "base": True},
    "model_stock": {"method": "model_stock", "weights": [1.0] * 3, "base": True},
    "model_stock of rows": {
        "method": "model_stock", "weights": [1.0] * 3, "parameters": {"filter_wise": True}, "base": True,
    },
    "passthrough": {"method": "passthrough", "weights": [1.0], "own": {"scale": [0.3]}},
}  # fmt: skip
WITHOUT_WEIGHTS = ("slerp", "model_stock", "passthrough")


def merge(case: dict[str, Any], tensor: str) -> dict[str, list[float]]:
    """Merge one tensor with mergekit."""
    base, candidates = make_inputs(tensor)
    used = candidates[: len(case["weights"])]
    weights = {} if case["method"] in WITHOUT_WEIGHTS else {"weight": case["weights"]}
    merged = merge_tensors(
        [base, *used] if case.get("base") else used,
        case["method"],
        parameters={**case.get("parameters", {}), **case.get("own", {}), **weights},
        base_index=0 if case.get("base") else None,
        dtype=torch.float32,
    )
    return summarise(merged)


def main() -> None:
    """Merge all tensors in all cases."""
    expected = {
        "mergekit": importlib.metadata.version("mergekit"),
        "torch": torch.__version__,
        "cases": {
            name: {**case, "expected": {tensor: merge(case, tensor) for tensor in SHAPES}}
            for name, case in CASES.items()
        },
    }
    Path(__file__).with_name("merge_expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
