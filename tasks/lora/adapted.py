"""A base with a LoRA adapter, as tensors: W + scaling * B A, in float32, never rounded to the base's dtype in between.

PEFT computes the same sum, but stores it in the dtype that the base was loaded with; with a float32 base both agree to
the last bits. The exact sum is what a merge should average: rounded to bfloat16 before, most of a small change is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from tasks.checkpoint import read_tensor_views
from tasks.errors import CheckpointError
from tasks.lora.adapter import Adapter, LowRankChange, read_adapter
from tasks.tensors import TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from tasks import torch_when_used as torch

_TILE_ELEMENTS = 256 * 1024
_FEWEST_ROWS, _MOST_ROWS = 16, 64


class LowRank:
    """scaling * B A, by rows of the base's tensor; used by one thread."""

    def __init__(self, change: LowRankChange):
        a, b = (_load(view).to(torch.float32) for view in (change.a, change.b))
        left, right = (a.T, b.T) if change.is_transposed else (b, a)
        self._left = left.contiguous()
        """(rows, rank)"""
        self._right = right.contiguous()
        """(rank, row length)"""
        self._scaling = change.scaling
        fitting = _TILE_ELEMENTS // self._right.shape[1] // _FEWEST_ROWS * _FEWEST_ROWS
        # Rows are computed so many at a time, always the same together: another matrix product may round otherwise.
        self._tile_rows = min(max(fitting, _FEWEST_ROWS), _MOST_ROWS)
        self._tile: tuple[int, Tensor] | None = None

    def add_to(self, rows: Tensor, first_row: int) -> None:
        """Add to rows of the base, in place; which of them come together changes no bit.

        Args:
            rows: (n, row length), float32 or float64.
            first_row: Which row of the whole tensor the first is.
        """
        row, stop = first_row, first_row + len(rows)
        while row < stop:
            start = row - row % self._tile_rows
            end = min(start + self._tile_rows, stop)
            rows[row - first_row : end - first_row].add_(self._compute_tile(start)[row - start : end - start])
            row = end

    def _compute_tile(self, start: int) -> Tensor:
        # Kept, since a block that ends inside a tile is followed by one that begins there.
        if self._tile is None or self._tile[0] != start:
            left = self._left[start : start + self._tile_rows]
            self._tile = start, (left @ self._right).mul_(self._scaling)
        return self._tile[1]


def read_adapted_tensors(folder: Path, adapter_folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Full name and content of every tensor of a base with an adapter, to be copied into a module.

    One tensor is in memory at a time. Names, shapes and order are the base's, so whatever takes the base's tensors can
    take these over it, and the base's own over them again.

    Args:
        folder: The base, in Hugging Face layout.
        adapter_folder: As PEFT writes it.

    Yields:
        Changed tensors in float32 (float64 where the base is), all others as they are stored.

    Raises:
        CheckpointError: the base or the adapter is damaged, or they do not belong together.
    """
    base = read_tensor_views(folder)
    adapter = read_adapter(adapter_folder, base)
    for name, view in base.items():
        yield name, adapt_tensor(view, adapter)


def adapt_tensor(view: TensorView, adapter: Adapter) -> Tensor:
    """One tensor of the base that an adapter was read for, in memory of its own if it is changed.

    Raises:
        CheckpointError: its file cannot be read.
    """
    tensor = _load(adapter.replaced.get(view.name, view))
    if change := adapter.changes.get(view.name):
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        LowRank(change).add_to(tensor, 0)
    return tensor


def _load(view: TensorView) -> Tensor:
    try:
        with safe_open(view.file, framework="pt") as tensors:
            return tensors.get_tensor(view.name_in_file)
    except Exception as error:
        raise CheckpointError(f"{view.file}: tensor {view.name!r} cannot be read: {error}") from error
