"""Load a checkpoint by transformers or sentence-transformers, strictly: no code of its own, no tensor made up."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from tasks.errors import CheckpointError, DeviceError

Kind = Literal["decoder", "encoder", "reranker", "encoder-decoder"]

_AUTO_CLASSES: dict[Kind, Any] = {
    "decoder": AutoModelForCausalLM,
    "reranker": AutoModelForSequenceClassification,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}


def load_module(kind: Kind, folder: Path, dtype: str, device: str) -> tuple[Any, Any]:
    """A fresh module for inference on a device, and its tokenizer (None for a sentence embedder, which has its own).

    Args:
        kind: What the checkpoint is loaded as.
        folder: A checkpoint in Hugging Face layout; none of its code is run.
        dtype: `float32`, `float16` or `bfloat16`, whatever the files hold.
        device: As torch calls it.

    Raises:
        CheckpointError: the folder cannot be loaded, lacks tensors of the model, or has no fast tokenizer.
        DeviceError: the device's memory is too small.
    """
    try:
        return _load_encoder(folder, dtype, device) if kind == "encoder" else _load_model(kind, folder, dtype, device)
    except CheckpointError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"{folder}: the model does not fit into the memory of {device}: {error}") from error
    except Exception as error:
        raise CheckpointError(f"{folder}: the model cannot be loaded: {type(error).__name__}: {error}") from error


def _load_model(kind: Kind, folder: Path, dtype: str, device: str) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: its tokenizer cannot say which characters a token covers; save it with a tokenizer.json"
        )
    loaded: Any = _AUTO_CLASSES[kind].from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers and only warns.
        raise CheckpointError(f"{folder}: the model's tensors {', '.join(missing)} are not in its files")
    return model.to(device).eval().requires_grad_(False), tokenizer


def _load_encoder(folder: Path, dtype: str, device: str) -> tuple[Any, None]:
    # Late: its import takes seconds that decoders need not pay.
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(folder),
        device=device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
    )
    return encoder.eval().requires_grad_(False), None
