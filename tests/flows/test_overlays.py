"""Settings files of an environment are laid over a recipe: sections by key, candidates and tasks by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flows.cli import cocktail
from flows.overlays import read_yaml
from flows.recipe import demo_recipe_path, read_recipe
from tasks.errors import RecipeError

RECIPE: dict[str, Any] = {
    "name": "assistant",
    "model_type": "decoder",
    "base": "./base",
    "candidates": [{"name": "base", "model": "./base"}, {"name": "law", "model": "/models/law", "role": "target"}],
    "examples": "./examples.jsonl",
    "weigh": {"strategy": "loss", "temperature": 1.0, "alpha": 0.5},
    "evaluate": [{"name": "law", "kind": "classification", "data": "./law.jsonl"}],
    "gate": {"rules": [{"task": "law", "min_delta": 0.0}, {"task": "law", "min": 0.5}]},
    "publish": {"to": ["./releases"], "keep": 3},
}
REFERENCES = (
    "write org/name[@revision] or hub://org/name[/path][@revision] for the Hub, s3://bucket/prefix, "
    "release:DEST[@alias], or a path that begins with /, ./ or ../"
)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return write(tmp_path / "recipes" / "recipe.yaml", RECIPE)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_sections_are_merged_by_key_and_lists_are_replaced(recipe_file: Path, tmp_path: Path):
    prod = {
        "weigh": {"alpha": 0.7},
        "gate": {"rules": [{"task": "law", "min": 0.9}]},
        "publish": {"to": ["s3://models"]},
    }
    recipe = read_recipe(recipe_file, settings=[write(tmp_path / "prod.yaml", prod)])
    assert (recipe.weigh.alpha, recipe.weigh.temperature) == (0.7, 1.0)
    assert [rule.min for rule in recipe.gate.rules] == [0.9]
    assert recipe.publish is not None
    assert (recipe.publish.to, recipe.publish.keep) == (["s3://models"], 3)


def test_candidates_and_tasks_are_merged_by_their_names(recipe_file: Path, tmp_path: Path):
    staging = {
        "candidates": [{"name": "law", "optional": True}, {"name": "news", "model": "org/news"}],
        "evaluate": [
            {"name": "law", "metric": "accuracy"},
            {"name": "more", "kind": "classification", "data": "/data/more"},
        ],
    }
    recipe = read_recipe(recipe_file, settings=[write(tmp_path / "staging.yaml", staging)])
    assert [(each.name, each.model, each.role, each.optional) for each in recipe.candidates] == [
        ("base", str(tmp_path / "recipes/base"), None, False),
        ("law", "/models/law", "target", True),
        ("news", "org/news", None, False),
    ]
    assert [(task.name, task.metric, task.data) for task in recipe.evaluate] == [
        ("law", "accuracy", str(tmp_path / "recipes/law.jsonl")),
        ("more", None, "/data/more"),
    ]


def test_paths_are_relative_to_the_file_they_are_written_in(recipe_file: Path, tmp_path: Path):
    settings = {
        "candidates": [{"name": "law", "model": "./law"}, {"name": "old", "model": "release:./out/assistant@champion"}],
        "examples": "../rows.jsonl",
        "evaluate": [{"name": "own", "kind": "command", "command": ["./measure.sh", "--fast"], "metric": "score"}],
        "publish": {"to": ["./out"]},
        "allow_drift": True,
    }
    recipe = read_recipe(recipe_file, settings=[write(tmp_path / "prod" / "prod.yaml", settings)])
    prod = tmp_path / "prod"
    assert recipe.candidates[1].model == str(prod / "law")
    assert recipe.candidates[2].model == f"release:{prod}/out/assistant@champion"
    assert recipe.examples == str(tmp_path / "rows.jsonl")
    assert recipe.evaluate[1].command == [str(prod / "measure.sh"), "--fast"]
    assert recipe.publish is not None
    assert recipe.publish.to == [str(prod / "out")]
    assert recipe.base == str(tmp_path / "recipes/base")


def test_rows_of_examples_stay_as_they_are(recipe_file: Path, tmp_path: Path):
    rows = [{"input": "./run", "output": "../x"}]
    recipe = read_recipe(recipe_file, settings=[write(tmp_path / "dev.yaml", {"examples": rows})])
    assert recipe.examples == rows


def test_a_later_file_wins_and_an_override_wins_over_all(recipe_file: Path, tmp_path: Path):
    files = [
        write(tmp_path / f"{number}.yaml", {"weigh": {"alpha": number, "temperature": 2.0}}) for number in (0.1, 0.2)
    ]
    assert read_recipe(recipe_file, settings=files).weigh.alpha == 0.2
    recipe = read_recipe(recipe_file, ["weigh.alpha=0.3"], files)
    assert (recipe.weigh.alpha, recipe.weigh.temperature) == (0.3, 2.0)


def test_nothing_takes_a_section_away(recipe_file: Path, tmp_path: Path):
    assert read_recipe(recipe_file, settings=[write(tmp_path / "dev.yaml", "publish:\n")]).publish is None


def test_a_problem_names_the_file_that_brought_it(recipe_file: Path, tmp_path: Path):
    first = write(tmp_path / "first.yaml", {"weigh": {"temprature": 2.0}, "evaluate": [{"name": "new", "data": "x"}]})
    second = write(tmp_path / "second.yaml", {"candidates": [{"name": "law", "model": "law"}], "merge": 3})
    with pytest.raises(RecipeError) as caught:
        read_recipe(recipe_file, ["score.batch_tokens=many"], [first, second])
    head, *problems = str(caught.value).splitlines()
    assert head == f"{recipe_file} with {first} with {second}: the recipe cannot be used:"
    assert sorted(problem.replace(REFERENCES, "...") for problem in problems) == [
        f"  - candidates.1.model: 'law' is not a reference; ... ({second})",
        f"  - evaluate.1.data: 'x' is not a reference; ... ({first})",
        f"  - evaluate.1.kind: this key is needed here ({first})",
        f"  - merge: expected a section with keys, found 3 ({second})",
        "  - score.batch_tokens: expected a whole number, found 'many' (--set score.batch_tokens=many)",
        f"  - weigh.temprature: unknown key 'temprature'; did you mean 'temperature'? ({first})",
    ]


def test_a_problem_of_a_whole_section_names_the_file_that_changed_it(recipe_file: Path, tmp_path: Path):
    prod = write(tmp_path / "prod.yaml", {"evaluate": [{"name": "law", "metric": "f1"}]})
    with pytest.raises(RecipeError, match=r"evaluate.0: metric: kind classification has accuracy; found f1 \(.*prod.y"):
        read_recipe(recipe_file, settings=[prod])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n", "expected keys such as name.*found a list"),
        ("a: [", "this is no YAML"),
        ("weigh: {}\nweigh: {}\n", "the key 'weigh' is written twice"),
        ({"candidates": [{"name": ["law"], "optional": True}]}, "candidates.0: an entry needs its name"),
        (
            {"candidates": [{"model": "./a"}], "evaluate": ["law"]},
            r"(?s)cannot be laid over a recipe:\n  - candidates.0: an entry needs its name.*\n  - evaluate.0: an entry",
        ),
    ],
)
def test_a_file_that_cannot_be_laid_over_is_refused(recipe_file: Path, tmp_path: Path, content: Any, message: str):
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(recipe_file, settings=[write(tmp_path / "prod.yaml", content)])
    assert str(caught.value).startswith(str(tmp_path / "prod.yaml"))


def test_a_missing_file_and_a_folder_are_refused(recipe_file: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"none.yaml: no such settings file; --with takes a YAML file"):
        read_recipe(recipe_file, settings=[tmp_path / "none.yaml"])
    with pytest.raises(RecipeError, match=r"this is a folder; name a file$"):
        read_recipe(recipe_file, settings=[tmp_path])


def test_commands_take_settings_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    settings = write(
        tmp_path / "prod.yaml", {"name": "elsewhere", "candidates": [{"name": "clinc", "model": "./none"}]}
    )
    arguments = ["plan", str(demo_recipe_path("decoder")), "--with", str(settings), "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(cocktail, arguments)
    assert done.exit_code != 0
    assert str(tmp_path / "none") in done.output + capfd.readouterr().err


def test_a_section_that_is_merged_into_another_may_have_changed_what_it_was_merged_from(tmp_path: Path):
    # `law` is merged into `weigh` before it is read itself.
    text = "a: {b: [&all {alpha: 0.5}, &law {<<: *all, alpha: 0.7}]}\nweigh: {<<: *law}\n"
    assert read_yaml(write(tmp_path / "prod.yaml", text), "")["weigh"] == {"alpha": 0.7}


def test_a_recipe_whose_candidate_has_no_proper_name_is_told_so_under_settings_too(tmp_path: Path):
    recipe = write(tmp_path / "recipe.yaml", RECIPE | {"candidates": [{"name": ["law"], "model": "/models/law"}]})
    settings = write(tmp_path / "prod.yaml", {"candidates": [{"name": "news", "model": "org/news"}]})
    with pytest.raises(RecipeError, match=r"candidates.0.name: expected text, found a list"):
        read_recipe(recipe, settings=[settings])
