"""What the training of both families shares: reading rows, batches and the optimiser's loop."""

import gzip
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

DATA = Path(__file__).parent / "data"
Row = TypeVar("Row")


@dataclass(frozen=True)
class Schedule:
    """Length and speed of one training: the learning rate falls linearly to zero after a short warm-up."""

    steps: int
    learning_rate: float
    batch_size: int = 32
    warmup_steps: int = 20


def read_rows(name: str) -> list[dict]:
    """Read bundled rows, such as `train/clinc.jsonl.gz`."""
    content = (DATA / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def batches(rows: Sequence[Row], batch_size: int, rng: random.Random) -> Iterator[list[Row]]:
    """Yield batches without end, in a new order in each pass; the last incomplete batch of a pass is left out."""
    while True:
        order = rng.sample(range(len(rows)), len(rows))
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            yield [rows[index] for index in order[start : start + batch_size]]


def optimise(model: torch.nn.Module, loss_of_step: Callable[[], torch.Tensor], schedule: Schedule) -> None:
    """Minimise the loss that `loss_of_step` computes on its next batch, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / schedule.warmup_steps, (schedule.steps - step) / schedule.steps)
    )
    model.train()
    started, recent = time.monotonic(), []
    for step in range(1, schedule.steps + 1):
        loss = loss_of_step()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        recent.append(loss.item())
        if step % 100 == 0 or step == schedule.steps:
            mean_loss = sum(recent) / len(recent)
            logger.info("step %d of %d, loss %.3f, %.0f s", step, schedule.steps, mean_loss, time.monotonic() - started)
            recent.clear()
    model.eval()
