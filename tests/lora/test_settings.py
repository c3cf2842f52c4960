import math
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import CheckpointError
from tasks.lora.settings import LoraSettings, read_settings

FILE = Path("chat/adapter_config.json")
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}


def problem(**changes: Any) -> str:
    with pytest.raises(CheckpointError, match=r"chat/adapter_config\.json") as caught:
        read_settings(CONFIG | changes, FILE)
    return str(caught.value)


def test_rank_stabilised_scaling_divides_by_the_root():
    assert LoraSettings(16, 8).scaling_of("q_proj") == 0.5
    assert LoraSettings(16, 8, is_rank_stabilised=True).scaling_of("q_proj") == 2.0


def test_patterns_are_matched_at_the_end_of_a_modules_name_and_the_first_counts():
    settings = LoraSettings(8, 8, rank_pattern={"q_proj": 4, r"layers\.0\..*": 2}, alpha_pattern={".*1.q_proj": 3})
    assert [settings.rank_of(name) for name in ("layers.0.q_proj", "layers.0.k", "layers.1.q_proj_x")] == [4, 2, 8]
    assert settings.scaling_of("layers.1.q_proj") == 3 / 4
    stabilised = LoraSettings(8, 8, is_rank_stabilised=True, rank_pattern={"k": 2})
    assert stabilised.scaling_of("k") == pytest.approx(8 / math.sqrt(2))


@pytest.mark.parametrize("kind", ["IA3", "LOHA", "ADALORA", None])
def test_other_kinds_of_adapters_are_refused(kind: str | None):
    assert f"expected peft_type LORA, found {kind!r}" in problem(peft_type=kind)


def test_everything_that_is_no_sum_is_refused_at_once():
    message = problem(
        use_dora=True, bias="all", lora_bias=True, layer_replication=[[0, 2]], init_lora_weights="pissa_niter_4"
    )
    for part in (
        "use_dora = True: DoRA scales", "bias = 'all': biases were trained", "lora_bias = True", "layer_replication",
        "init_lora_weights = 'pissa_niter_4': training may have begun from a changed base",
    ):  # fmt: skip
        assert part in message, part
    assert "merge it with PEFT (merge_and_unload)" in message


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_beginnings_that_leave_the_base_alone_are_fine(init: bool | str):
    assert read_settings({**CONFIG, "init_lora_weights": init}, FILE) == LoraSettings(2, 4)


def test_numbers_that_make_no_sense_are_listed():
    message = problem(r=0, lora_alpha="x", rank_pattern={"q_proj": 1.5, "(": 2}, alpha_pattern=["k"])
    for part in (
        "r: expected a rank of at least 1, found 0", "lora_alpha: expected a number, found 'x'",
        "rank_pattern['q_proj']: expected a whole number, found 1.5",
        "rank_pattern['(']: this is no regular expression",
        "alpha_pattern: expected module names and numbers, found ['k']",
    ):  # fmt: skip
        assert part in message, part
