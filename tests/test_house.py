"""The laws of the house that no linter holds."""

import ast
from pathlib import Path

import pytest

import flows
import tasks
from flows.cli import cocktail

REPOSITORY = Path(__file__).resolve().parents[1]


def test_flows_and_tasks_are_those_of_this_checkout():
    # Both names are generic: another distribution could bring its own.
    assert Path(flows.__file__).resolve().parent == REPOSITORY / "flows"
    assert Path(tasks.__file__).resolve().parent == REPOSITORY / "tasks"


def test_package_files_hold_a_docstring_only():
    for package in ("flows", "tasks"):
        for path in (REPOSITORY / package).rglob("__init__.py"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), path


def test_every_step_has_a_face_and_every_face_is_thin():
    steps = {path.parent.name for path in (REPOSITORY / "tasks").glob("*/task.py")}
    assert steps == {"plan", "download", "score", "weigh", "merge", "evaluate", "gate", "publish"}
    for step in steps:
        tree = ast.parse((REPOSITORY / "tasks" / step / "task.py").read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert functions and all(face.end_lineno - face.decorator_list[0].lineno < 35 for face in functions), step


def test_the_readme_lists_every_command():
    _, commands, _ = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("\n## Commands\n")[1].split("```", 2)
    listed = [line.split()[0] for line in commands.splitlines() if line.startswith("  ") and line[2] != " "]
    assert sorted(listed) == sorted(cocktail.commands)


def test_the_flow_is_short_enough_to_be_read_at_once():
    tree = ast.parse((REPOSITORY / "flows/refresh.py").read_text(encoding="utf-8"))
    flow = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "refresh")
    statements = [node for node in flow.body if not isinstance(node, ast.Expr)]
    assert flow.end_lineno - statements[0].lineno < 60


@pytest.mark.xdist_group("house")
def test_tests_that_belong_together_run_in_one_process(request: pytest.FixtureRequest):
    # pytest-xdist says so by a suffix. Without it every process starts all servers, and they starve each other.
    is_grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@house") == is_grouped
