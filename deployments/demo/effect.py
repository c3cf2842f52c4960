"""Measure what the recommended recipe does, over training seeds, with the project's own steps.

For every family, seed and target task it mixes the experts as the bundled recipe says (the target's expert gets alpha,
softmax(-loss / temperature) shares the rest) and evaluates base, expert and merged model on all tasks:

    kept      = (merged - base) / (expert - base) on the target task
    won back  = (merged - expert) / (base - expert), mean over the other tasks

Command: python deployments/demo/effect.py SEEDS_FOLDER --output deployments/demo/effect.json
where SEEDS_FOLDER/seed-N/{decoder,encoder} holds what `train.py --seed N --output SEEDS_FOLDER/seed-N` wrote.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import yaml

from flows import direct
from flows.recipe import demo_recipe_path
from tasks.cache import ResultCache
from tasks.devices import open_devices
from tasks.recipe import Recipe
from tasks.records import Evaluation

logger = logging.getLogger(__name__)

FAMILIES = ("decoder", "encoder")


@dataclass(frozen=True)
class Effect:
    """One merge: metrics of the three models on the target, and their means over the other tasks."""

    family: str
    seed: str
    target: str
    n: int
    base: float
    expert: float
    merged: float
    base_others: float
    expert_others: float
    merged_others: float

    @property
    def kept(self) -> float:
        """Share of the expert's gain over the base that the merged model keeps on the target."""
        return (self.merged - self.base) / (self.expert - self.base)

    @property
    def won_back(self) -> float:
        """Share of what the expert lost on the other tasks that the merged model has again."""
        return (self.merged_others - self.expert_others) / (self.base_others - self.expert_others)


def measure(family: str, seed_folder: Path, cache: ResultCache) -> Iterator[Effect]:
    """One effect per target task of a family."""
    content = yaml.safe_load(demo_recipe_path(family).read_text(encoding="utf-8"))
    for target in [task["name"] for task in content["evaluate"]]:
        recipe = recipe_for(content, family, seed_folder, target)
        planned, candidates = direct.prepare(recipe, cache)
        planned, candidates, _, weights = direct.score_candidates(recipe, planned, candidates, cache)
        with tempfile.TemporaryDirectory() as folder:
            merged = direct.merge_candidates(recipe, planned, candidates, weights, Path(folder) / "merged", cache)
            models = [merged.checkpoint, *candidates]
            evaluations = direct.evaluate_models(recipe, planned.evaluation_data, models, cache)
        yield effect_of(family, seed_folder.name, target, evaluations)


def recipe_for(content: dict[str, object], family: str, seed_folder: Path, target: str) -> Recipe:
    """The bundled recipe with another seed's models and another target; no gate, nothing published."""
    text = yaml.safe_dump({key: value for key, value in content.items() if key not in ("gate", "publish")})
    changed = yaml.safe_load(text.replace(f"./models/{family}", str((seed_folder / family).resolve())))
    changed["candidates"] = [
        {"name": candidate["name"], "model": candidate["model"]}
        | ({"role": "target"} if candidate["name"] == target else {})
        for candidate in changed["candidates"]
    ]
    suffix = "_pairs" if family == "encoder" else ""
    changed["examples"] = f"./data/examples/{target}{suffix}.jsonl"
    return Recipe.model_validate(changed, context={"folder": demo_recipe_path(family).parent})


def effect_of(family: str, seed: str, target: str, evaluations: Sequence[Evaluation]) -> Effect:
    """Pick base, the target's expert and the merged model out of the evaluations."""

    def on_target(model: str) -> float:
        return next(row.value for row in evaluations if row.model == model and row.task == target)

    def on_others(model: str) -> float:
        return fmean(row.value for row in evaluations if row.model == model and row.task != target)

    n = next(len(row.values) for row in evaluations if row.task == target)
    models = ("base", target, "merged")
    return Effect(family, seed, target, n, *map(on_target, models), *map(on_others, models))


def as_markdown(effects: Sequence[Effect]) -> str:
    """One row per merge, and the mean over seeds per family and target."""
    lines = [
        "| family | seed | target | n | base | expert | merged | kept | others: base | expert | merged | won back |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(effect, effect.seed) for effect in effects]
    groups = sorted({(effect.family, effect.target) for effect in effects})
    lines += [
        _row(_mean([effect for effect in effects if (effect.family, effect.target) == group]), "**mean**")
        for group in groups
    ]
    return "\n".join(lines) + "\n"


def _row(effect: Effect, seed: str) -> str:
    target = (effect.base, effect.expert, effect.merged)
    others = (effect.base_others, effect.expert_others, effect.merged_others)
    cells = [effect.family, seed, effect.target, str(effect.n)]
    cells += [*(f"{value:.3f}" for value in target), f"{effect.kept:.0%}"]
    cells += [*(f"{value:.3f}" for value in others), f"{effect.won_back:.0%}"]
    return f"| {' | '.join(cells)} |"


def _mean(effects: Sequence[Effect]) -> Effect:
    first = asdict(effects[0])
    numbers = [name for name, value in first.items() if isinstance(value, float)]
    return Effect(**first | {name: fmean(getattr(effect, name) for effect in effects) for name in numbers})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=Path, help="folder with seed-0, seed-1, ...")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="default: both")
    parser.add_argument("--output", type=Path, required=True, help="JSON with every number; the table goes beside it")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    effects: list[Effect] = []
    # Workers stay between steps: they import torch and transformers once.
    with tempfile.TemporaryDirectory() as folder, open_devices("auto"):
        cache = ResultCache(Path(folder))
        for family in arguments.family or FAMILIES:
            for seed_folder in sorted(arguments.seeds.glob("seed-*")):
                effects += measure(family, seed_folder, cache)
                logger.info("%s %s: done", family, seed_folder.name)
    shown = [asdict(effect) | {"kept": effect.kept, "won_back": effect.won_back} for effect in effects]
    arguments.output.write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(as_markdown(effects), encoding="utf-8")


if __name__ == "__main__":
    main()
