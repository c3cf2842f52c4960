"""LoRA adapters of a few hundred numbers, as PEFT writes them, and the models that they make."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from tasks.lora.adapted import read_adapted_tensors


def write_adapter(
    folder: Path, modules: Mapping[str, tuple[int, int]], *, seed: int = 3, size: float = 1.0, **settings: Any
) -> Path:
    """LoRA of rank 2 and scaling 2.

    Args:
        folder: Where it is written; made anew.
        modules: Name of each changed module in the base to the shape of its matrix.
        seed: Of the numbers.
        size: Their spread.
        settings: Of adapter_config.json, besides those that are always there.
    """
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    draw = np.random.default_rng(seed)
    tensors = {}
    for module, (rows, columns) in modules.items():
        for factor, shape in (("A", (2, columns)), ("B", (rows, 2))):
            name = f"base_model.model.{module}.lora_{factor}.weight"
            tensors[name] = draw.normal(0, size, shape).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def save_merged(model: Path, adapter: Path, folder: Path) -> Path:
    """The model of one file with the adapter added, as a checkpoint of its own."""
    shutil.copytree(model, folder)
    save_tensors(dict(read_adapted_tensors(model, adapter)), folder / "model.safetensors", {"format": "pt"})
    return folder
