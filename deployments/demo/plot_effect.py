"""Draw what `effect.py` measured: base, expert and merged model on the target task and on the others.

Command: python deployments/demo/plot_effect.py deployments/demo/effect.json deployments/demo/effect.svg
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes

# Colour, marker and size; the base is a bar, which shows on both sides of a dot that lies on it.
MODELS = {"base": ("#6e6e6e", "|", 260), "expert": ("#d9730d", "o", 80), "merged": ("#1f6feb", "o", 80)}


def draw(effects: list[dict[str, Any]], output: Path) -> None:
    """Two panels of dots: one row per family and target, one small dot per seed, a large one for the mean."""
    # Text stays text (smaller, searchable), and equal data give an equal file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "effect", "font.size": 11})
    groups = list(dict.fromkeys((effect["family"], effect["target"]) for effect in effects))
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 0.6 * len(groups) + 1.6), sharey=True)
    for panel, suffix, title in zip(panels, ("", "_others"), ("on the target task", "on the other tasks"), strict=True):
        for row, group in enumerate(groups):
            draw_row(
                panel, row, [effect for effect in effects if (effect["family"], effect["target"]) == group], suffix
            )
        panel.set_title(title, loc="left")
        panel.set_xlabel("accuracy (decoder), ndcg@10 (encoder)")
        panel.grid(axis="x", color="#dddddd")
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(groups)), [f"{family}: {target}" for family, target in groups])
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="upper right", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(output, metadata={"Date": None})


def draw_row(panel: Axes, row: int, effects: list[dict[str, Any]], suffix: str) -> None:
    """The dots of one family and target."""
    for model, (colour, marker, size) in MODELS.items():
        values = [effect[model + suffix] for effect in effects]
        panel.scatter(values, [row] * len(values), s=16, color=colour, alpha=0.35, linewidths=0)
        width = 2.5 if marker == "|" else 0
        panel.scatter([fmean(values)], [row], s=size, color=colour, label=model, marker=marker, linewidths=width)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("effects", type=Path, help="JSON that effect.py wrote")
    parser.add_argument("output", type=Path, help="SVG file")
    arguments = parser.parse_args()
    draw(json.loads(arguments.effects.read_text(encoding="utf-8")), arguments.output)


if __name__ == "__main__":
    main()
