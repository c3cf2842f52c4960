"""What `deployments/COMING_FROM.md` shows can be used as it stands: recipes are valid, calls fit, numbers are right."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.recipe import Recipe
from tasks.settings import CandidateSettings
from tasks.weigh.loss import compute_merge_weights
from tasks.weigh.weigh import weigh_candidates

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "deployments" / "COMING_FROM.md"
TEXT = PAGE.read_text(encoding="utf-8")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def pairs() -> Iterator[tuple[dict[str, Any], Recipe]]:
    """Each mergekit configuration with the recipe that follows it."""
    shown = blocks(TEXT, "yaml")
    assert [block.splitlines()[0] for block in shown] == ["# mergekit", "# here"] * 2
    for theirs, ours in zip(shown[::2], shown[1::2], strict=True):
        yield yaml.safe_load(theirs), Recipe.model_validate(yaml.safe_load(ours), context={"folder": REPOSITORY})


def test_a_recipe_mixes_the_models_of_the_mergekit_file_before_it():
    for theirs, ours in pairs():
        assert ours.merge.method == theirs["merge_method"]
        assert ours.merge.dtype == theirs.get("out_dtype", theirs["dtype"])
        assert (ours.base is None) == ("base_model" not in theirs)
        models = [candidate.model for candidate in ours.candidates]
        assert models == [str((REPOSITORY / entry["model"]).resolve()) for entry in theirs["models"]]


def test_a_recipe_has_the_weights_of_the_mergekit_file_before_it():
    for theirs, ours in pairs():
        numbers = [entry["parameters"]["weight"] for entry in theirs["models"]]
        if ours.merge.method == "linear":
            # mergekit's default for this method: normalize, divide by the sum.
            numbers = [number / sum(numbers) for number in numbers]
        candidates: list[CandidateSettings] = ours.candidates
        weights = weigh_candidates(candidates, [], ours.weigh, ours.merge.method).weights
        assert list(weights.values()) == pytest.approx(numbers)


@pytest.mark.parametrize("text", [TEXT, README], ids=["page", "README"])
def test_python_that_is_shown_fits_the_functions(text: str):
    for block in blocks(text, "python"):
        tree, known = ast.parse(block), dict[str, Any]()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("flows.", "tasks.")):
                module = importlib.import_module(node.module or "")
                known |= {alias.name: getattr(module, alias.name) for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.startswith("mix_"):
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(known[node.func.id]).bind(*node.args, **keywords)


def test_the_calls_have_lm_cocktails_arguments_and_defaults_first():
    module = importlib.import_module("flows.mix")
    shown = re.findall(r"^\| `(mix_\w+)\((model_names_or_paths.*?)\)` \|.*?also (.*?) \|$", TEXT, re.MULTILINE)
    assert [name for name, _, _ in shown] == ["mix_models", "mix_models_with_data"]
    for name, arguments, more in shown:
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        theirs = [parameter for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        ours = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        written = [
            parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
            for parameter in theirs
        ]
        assert ", ".join(written) == arguments
        assert re.findall(r"`(\w+)=`", more) == ours


def test_the_table_of_temperatures_is_right():
    rows = re.findall(r"^\| (\d\.\d), (\d\.\d) \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 2
    for first, second, cells in rows:
        for temperature, cell in zip((5.0, 1.0, 0.2), cells.split(" | "), strict=True):
            weights = compute_merge_weights({"a": float(first), "b": float(second)}, temperature)
            assert cell == ", ".join(f"{weight:.3f}" for weight in weights.values())


def test_links_lead_somewhere_and_every_recipe_is_listed():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (PAGE.parent / link).exists(), link
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link
    listed = set(re.findall(r"\(deployments/recipes/(\w+)\.yaml\)", README))
    assert listed == {path.stem for path in (REPOSITORY / "deployments" / "recipes").glob("*.yaml")}
