"""LoRA adapters as PEFT writes them: what they change in a base model, known from their headers.

An adapter is a folder with adapter_config.json and adapter_model.safetensors. For a tensor W of the base it holds two
thin matrices, and the fine-tuned model has W + scaling * B A. Everything that PEFT can store and that is no such sum is
refused: a merge that left it out would be of another model than the one that was trained. A head that is tied to the
embeddings follows a change of them, as after PEFT's own merge.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.checkpoint import read_json_object
from tasks.errors import CheckpointError
from tasks.lora.settings import LoraSettings, read_settings
from tasks.messages import list_lines
from tasks.tensors import FLOAT_DTYPES, TensorView, read_header

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
# `default` is the adapter's name, which old versions of PEFT left in.
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.default)?(\.weight)?")
_WHOLE = re.compile(r"(\.modules_to_save(\.default)?|\.original_module|\.base_layer)(?=\.[^.]+$)")


@dataclass(frozen=True, slots=True)
class LowRankChange:
    """scaling * B A, which is added to one tensor of the base."""

    a: TensorView
    """(rank, in); of an embedding (rank, tokens)."""
    b: TensorView
    """(out, rank); of an embedding (dimension, rank)."""
    scaling: float
    is_transposed: bool
    """Whether the base's tensor is (in, out), as in a Conv1D of GPT-2 and in every embedding."""

    @property
    def rank(self) -> int:
        """Rank of the change."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter does to the tensors of its base; names are the base's."""

    folder: Path
    base_model: str
    """What it was trained on, as its configuration says; may be empty."""
    changes: Mapping[str, LowRankChange]
    replaced: Mapping[str, TensorView]
    """Tensors that were trained whole (modules_to_save). One that is also in `changes` is replaced, then changed."""


def read_adapter(folder: Path, base: Mapping[str, TensorView]) -> Adapter:
    """Read an adapter's configuration and headers and find the tensors of its base.

    Args:
        folder: As PEFT's `save_pretrained` writes it.
        base: Full tensor name to view, of the model it was trained on.

    Raises:
        CheckpointError: the folder is damaged; the adapter is no plain LoRA; or its tensors are not those of the base
            and the configuration. All of them are listed.
    """
    config = read_json_object(folder / ADAPTER_CONFIG_FILE)
    settings = read_settings(config, folder / ADAPTER_CONFIG_FILE)
    file = folder / ADAPTER_WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: there is no {ADAPTER_WEIGHTS_FILE}; of adapters only safetensors are read (a pickle can run "
            "code), so save it again with save_pretrained(folder, safe_serialization=True)"
        )
    found = _Assembly(file, settings, base)
    for view in read_header(file, ""):
        found.add(view)
    changes = found.finish()
    return Adapter(folder, str(config.get("base_model_name_or_path") or ""), changes, found.replaced)


def other_base(adapter: Adapter, model: str) -> str | None:
    """Say that an adapter was trained on another model than `model`, a reference; None if that is not known.

    Names of the Hub only can be compared: the same model may lie in many folders.
    """
    expected = model.removeprefix("hub://").partition("@")[0]
    names = (adapter.base_model, expected)
    if any(not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(".") for name in names):
        return None
    if adapter.base_model.lower() == expected.lower():
        return None
    return (
        f"{adapter.folder}: the adapter was trained on {adapter.base_model}, and the recipe adds it to {expected}; "
        "that is right only if both are the same model"
    )


class _Assembly:
    """Tensors of an adapter, sorted by what they do to which tensor of the base."""

    def __init__(self, file: Path, settings: LoraSettings, base: Mapping[str, TensorView]):
        self.replaced: dict[str, TensorView] = {}
        self._file = file
        self._settings = settings
        self._base = base
        self._factors: dict[tuple[str, bool], dict[str, TensorView]] = {}
        self._problems: list[str] = []

    def add(self, view: TensorView) -> None:
        """Take over a tensor of the adapter's file."""
        name = view.name.removeprefix(_PREFIX)
        if match := _FACTOR.fullmatch(name):
            key = match["module"], bool(match["embedding"])
            self._factors.setdefault(key, {})[match["factor"]] = view
        elif ".lora_" in name:
            self._problems.append(f"{view.name}: this is no matrix of plain LoRA (DoRA and others have such tensors)")
        else:
            self._replace(view, _WHOLE.sub("", name))

    def finish(self) -> dict[str, LowRankChange]:
        """All changes, by the base's tensor.

        Raises:
            CheckpointError: a tensor is left over, or does not fit.
        """
        changes: dict[str, LowRankChange] = {}
        unclear: list[str] = []
        for (module, is_embedding), factors in self._factors.items():
            target = self._find(f"{module}.weight", module)
            if target is None or not self._is_pair(module, factors):
                continue
            scaling = self._settings.scaling_of(module)
            change = LowRankChange(factors["A"], factors["B"], scaling, is_embedding or self._settings.is_transposed)
            change, is_clear = self._orient(change, module, target, is_embedding)
            changes[target.name] = change
            unclear += [] if is_clear else [module]
        self._check_orientation(changes, unclear)
        if self._problems:
            raise CheckpointError(
                f"{self._file}: the adapter's tensors do not fit its configuration and its base; check that model is "
                f"what it was trained on:{list_lines(self._problems)}"
            )
        return changes

    def _replace(self, view: TensorView, name: str) -> None:
        target = self._find(name, view.name)
        if target is None:
            return
        if view.shape != target.shape or view.dtype not in FLOAT_DTYPES:
            self._problems.append(
                f"{view.name}: expected floating shape {list(target.shape)}, as the base has it, found "
                f"{list(view.shape)} ({view.dtype})"
            )
        self.replaced[target.name] = view

    def _find(self, name: str, what: str) -> TensorView | None:
        """The base's tensor of this name, or of one with a part more or less in front.

        A model with a head puts its body's name in front (`transformer.h.0`), and files have it with and without.
        """
        shorter = name.partition(".")[2]
        longer = [other for other in self._base if other.partition(".")[2] == name]
        candidates = [each for each in (name, shorter) if each in self._base] or longer
        if (len(candidates) > 1 and name not in self._base) or not candidates:
            tied = "; its head is tied to the embeddings, which a change of one would untie" if _is_head(name) else ""
            self._problems.append(f"{what}: the base has no tensor {name!r}{tied}")
            return None
        return self._base[candidates[0]]

    def _is_pair(self, module: str, factors: Mapping[str, TensorView]) -> bool:
        """Whether both matrices are there with the rank that the configuration says; else it is a problem."""
        before = len(self._problems)
        self._problems += [f"{module}: lora_{factor} is missing" for factor in "AB" if factor not in factors]
        rank = self._settings.rank_of(module)
        for factor, view in factors.items():
            axis = 0 if factor == "A" else -1
            if len(view.shape) != 2:
                kind = "a convolution, which is not supported" if len(view.shape) > 2 else "cut, as by sharded training"
                self._problems.append(f"{view.name}: expected a matrix, found shape {list(view.shape)}; it is {kind}")
            elif view.shape[axis] != rank or view.dtype not in FLOAT_DTYPES:
                self._problems.append(
                    f"{view.name}: expected floating numbers of rank {rank}, found shape {list(view.shape)} "
                    f"({view.dtype})"
                )
        return len(self._problems) == before

    def _orient(
        self, change: LowRankChange, module: str, target: TensorView, is_embedding: bool
    ) -> tuple[LowRankChange, bool]:
        """The change as it lies in the base's tensor, and whether the shapes alone say so."""
        plain = (change.b.shape[0], change.a.shape[1])
        fitting = [transposed for transposed in (False, True) if target.shape == plain[:: -1 if transposed else 1]]
        fitting = [True] if is_embedding and True in fitting else [] if is_embedding else fitting
        if not fitting:
            expected = plain[::-1] if is_embedding else plain
            self._problems.append(
                f"{module}: the adapter changes a tensor of shape {list(expected)}; the base's {target.name!r} has "
                f"{list(target.shape)}"
            )
            return change, True
        if len(fitting) == 2:
            return change, False
        return LowRankChange(change.a, change.b, change.scaling, fitting[0]), True

    def _check_orientation(self, changes: Mapping[str, LowRankChange], unclear: list[str]) -> None:
        """A square matrix looks alike both ways: the configuration decides, if all others agree with it."""
        expected = self._settings.is_transposed
        linear = [change for change in changes.values() if "lora_embedding_" not in change.a.name]
        if any(change.is_transposed != expected for change in linear):
            self._problems += [
                f"{module}: it is square, so that its shape does not say whether it is transposed, and fan_in_fan_out "
                f"= {expected} of {ADAPTER_CONFIG_FILE} is not true of all others"
                for module in unclear
            ]


def _is_head(name: str) -> bool:
    return name.startswith(("lm_head.", "embed_out.", "output."))
