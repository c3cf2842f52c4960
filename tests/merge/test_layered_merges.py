"""Weights and parameters that differ from tensor to tensor reach the tensors that they are meant for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.layered import read_setting
from tasks.merge.merge import merge_checkpoints

NAMES = ("model.embed_tokens.weight", *(f"model.layers.{layer}.mlp.weight" for layer in range(3)), "lm_head.weight")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # Embeddings and layer 0 have depth 0, layer 1 has 1/2, layer 2 and the head have 1.
        ({"one": [0, 1], "three": [1, 0]}, (3.0, 3.0, 2.0, 1.0, 1.0)),
        # The middle of three numbers is layer 1: 0.75 x 1 + 0.25 x 3 = 1.5.
        ({"one": [0, 0.75, 0], "three": [1, 0.25, 1]}, (3.0, 3.0, 1.5, 3.0, 3.0)),
        (
            {
                "one": [{"filter": "mlp", "value": 1}, {"value": 0}],
                "three": [{"filter": "mlp", "value": 0}, {"value": 1}],
            },
            (3.0, 1.0, 1.0, 1.0, 3.0),
        ),
    ],
)
def test_a_linear_merge_by_depth_and_by_filter(
    make_checkpoint: Any, load_all: Any, tmp_path: Path, weights: dict[str, Any], expected: tuple[float, ...]
):
    one, three = (
        make_checkpoint(name, {key: torch.full((4,), value) for key in NAMES})
        for name, value in (("one", 1.0), ("three", 3.0))
    )
    merge_checkpoints(
        one, [one, three], {name: read_setting(weight) for name, weight in weights.items()},
        method="linear", dtype="base", max_shard_bytes=10**9, template=one, output=tmp_path / "out",
    )  # fmt: skip
    merged = load_all(tmp_path / "out")
    assert {name: tensor.tolist() for name, tensor in merged.items()} == {
        name: [value] * 4 for name, value in zip(NAMES, expected, strict=True)
    }


def test_a_candidate_in_float64_widens_the_sum_also_of_tensors_in_which_it_does_not_count(
    make_checkpoint: Any, load_all: Any, tmp_path: Path
):
    # Multiples of 2^-10, so that differences are exact and the expected numbers are those of the formula in float64.
    generator = torch.Generator().manual_seed(1)
    base, law, news = (
        {name: torch.randint(-4096, 4096, (700,), generator=generator) / 1024 for name in NAMES} for _ in range(3)
    )
    models = [make_checkpoint("base", base), make_checkpoint("law", law)]
    models.append(make_checkpoint("news", {name: tensor.double() for name, tensor in news.items()}))
    weights = {"law": 0.3, "news": read_setting([{"filter": "mlp", "value": 0}, {"value": 0.5}])}
    merge_checkpoints(
        models[0], models[1:], weights,
        method="task_arithmetic", dtype="base", max_shard_bytes=10**9, template=models[0], output=tmp_path / "out",
    )  # fmt: skip
    name = "model.layers.1.mlp.weight"
    expected = base[name].double() + 0.3 * (law[name].double() - base[name].double())
    assert torch.equal(load_all(tmp_path / "out")[name], expected.float())
