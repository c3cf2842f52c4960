"""Write the adapters in lora/, and beside each what PEFT's own merge gives, in an environment of its own.

From the root of this repository:

    python3.11 -m venv /tmp/peft
    /tmp/peft/bin/pip install -c constraints.txt torch transformers peft
    PYTHONPATH=tests/helpers /tmp/peft/bin/python tests/parity/make_lora_expected.py

The files that lie here were made with peft 0.21.2, torch 2.13.0 and transformers 5.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from lora_models import BASES, draw_numbers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = Path(__file__).parent / "lora"
CONFIGS: dict[str, dict[str, Any]] = {
    "patterns": {
        "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj", "embed_tokens"],
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 3, "down_proj": 2},
        "alpha_pattern": {r".*0\.mlp.*": 5, "v_proj": 1}, "modules_to_save": ["lm_head", "norm"],
    },
    "stabilised": {"r": 8, "lora_alpha": 3, "target_modules": "all-linear", "use_rslora": True},
    "conv1d": {"r": 2, "lora_alpha": 4, "target_modules": ["c_attn", "c_proj", "wte"], "fan_in_fan_out": True},
    "classifier": {"r": 2, "lora_alpha": 8, "target_modules": ["query", "dense"], "task_type": "SEQ_CLS"},
}  # fmt: skip


def main() -> None:
    """Make every adapter, save it, merge it."""
    torch.set_num_threads(1)
    for case, make_base in BASES.items():
        shutil.rmtree(HERE / case, ignore_errors=True)
        base = draw_numbers(make_base(), seed=1)
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        model = get_peft_model(base, LoraConfig(**CONFIGS[case]))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in trained:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        model.peft_config["default"].base_model_name_or_path = f"org/{case}"
        # Whether embeddings were resized is asked of the Hub, which has no such model.
        model.save_pretrained(HERE / case, save_embedding_layers=case == "patterns")
        (HERE / case / "README.md").unlink()
        merged = model.merge_and_unload().state_dict()
        changed = {
            name: tensor.contiguous().clone()
            for name, tensor in merged.items()
            if not torch.equal(tensor, before[name]) and not (case == "conv1d" and name == "lm_head.weight")
        }
        save_file(changed, HERE / case / "merged.safetensors")


if __name__ == "__main__":
    main()
