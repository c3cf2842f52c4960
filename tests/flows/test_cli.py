"""The command line as people and scripts meet it: help, results, exit codes, and what it says of every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from flows import direct
from flows.cli import cocktail
from flows.recipe import read_recipe
from tasks.arithmetic.library import load_library
from tasks.devices import open_devices
from tasks.settings import CacheSettings
from tests.flows.conftest import read

# Of its own, so that no other run on this machine is waited for.
DEVICES = ["cpu:61"]
GIVEN = ["--set", "weigh={strategy: given, weights: {base: 0.5, clinc: 0.25, wordnet: 0.25}}"]

Run = Callable[..., Result]


@pytest.fixture
def path(content: dict[str, Any], tmp_path: Path) -> Path:
    """`content` as a recipe's file, with absolute paths and a device of its own."""
    content["score"] = {"devices": DEVICES}
    return write(tmp_path / "recipe.yaml", content)


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(read(content).model_dump(mode="json", by_alias=True, exclude_none=True)))
    return path


@pytest.fixture
def run(path: Path, cache: CacheSettings) -> Run:
    """Run a command on the recipe with more arguments."""

    def run_command(command: str, *arguments: object) -> Result:
        return invoke(command, path, "--cache", cache.folder, *arguments)

    return run_command


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cocktail, [str(argument) for argument in arguments], env={"COLUMNS": "80"})


def model_of(path: Path, name: str) -> Path:
    return Path(next(candidate.model for candidate in read_recipe(path).candidates if candidate.name == name))


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(cocktail.commands))])
def test_every_command_explains_itself_within_80_columns(command: list[str]):
    result = invoke(*command, "--help")
    assert result.exit_code == 0 and result.stdout.startswith(f"Usage: cocktail {' '.join(command)}".rstrip())
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "..." not in result.stdout.replace("MODEL...", "").replace("[ARGS]...", "")


def test_the_overview_lists_every_command():
    listed = [
        line.split()[0] for line in invoke("--help").stdout.splitlines() if line.startswith("  ") and line.strip()
    ]
    assert set(cocktail.commands) <= set(listed)


def test_init_writes_a_recipe_that_reads_and_never_over_another(tmp_path: Path):
    file = tmp_path / "my.yaml"
    result = invoke("init", file)
    assert result.exit_code == 0 and f"next: cocktail plan {file}" in result.stdout
    assert read_recipe(file).name == "assistant"
    file.write_text("mine")
    again = invoke("init", file)
    assert again.exit_code == 2 and "exists; choose another name, or --force" in again.stderr
    assert file.read_text() == "mine"
    assert json.loads(invoke("init", file, "--force", "--json").stdout) == {"file": str(file)}
    lost = invoke("init", tmp_path / "none/my.yaml")
    assert lost.exit_code == 2 and "cannot be written: No such file or directory" in lost.stderr


def test_schema_is_json_for_editors():
    assert {"candidates", "weigh"} <= json.loads(invoke("schema").stdout)["properties"].keys()


def test_plan_tells_who_takes_part_and_what_it_costs_and_cuts_nothing(run: Run, path: Path, tmp_path: Path):
    result = run("plan")
    assert result.exit_code == 0 and result.stderr.count("\n") == 1
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in result.stdout
    assert next(line for line in lines if "│ clinc" in line).split()[3] == "target"
    assert next(line for line in lines if "│ base" in line).split()[5:7] == ["MB", "│"]
    assert [line.split()[0] for line in lines if line and line[0].isalpha()] == [
        "Plan", "distance:", "examples", "evaluation", "cached", "reads", "writes", "memory", "free", "free",
            "releases",
        "champion", "fingerprint",
    ]  # fmt: skip
    folded = "".join(cell.strip() for line in lines if line.startswith("│") for cell in [line.split("│")[-2]])
    assert str(model_of(path, "wordnet")) in folded
    assert f"{tmp_path}/releases/assistant" in "".join(line.strip() for line in lines[-12:])


def test_plan_in_json_is_one_object_also_with_warnings(run: Run, path: Path):
    result = run("plan", "--json", "--set", f"candidates.2.model={model_of(path, 'clinc')}")
    planned = json.loads(result.stdout)
    assert [candidate["name"] for candidate in planned["candidates"]] == ["base", "clinc", "wordnet"]
    assert planned["distances"]["base"] == 0.0 and all(n_bytes > 0 for n_bytes in planned["free_bytes"].values())
    (warning,) = planned["warnings"]
    assert "one and the same model" in warning and warning in result.stderr


def test_a_candidate_that_is_left_out_is_shown_with_the_reason(run: Run, tmp_path: Path):
    entry = {"name": "wordnet", "model": str(tmp_path / "none"), "optional": True}
    result = run("plan", "--set", f"candidates.2={json.dumps(entry)}")
    assert result.exit_code == 0
    assert "left out:" in result.stdout and "no such folder" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "wiegh.alpha=1"], 2, "wiegh: unknown key 'wiegh'; did you mean 'weigh'?"),
        (["--set", "weigh={strategy: given, weights: {base: 1, clinc: 1, wordnet: 1}}"], 2, "these sum to 3"),
        (["--set", "candidates.1.role=null"], 2, "weigh.alpha: it is the share of the candidate with role: target"),
        (["--set", "weigh.temperature=.nan"], 2, "weigh.temperature: expected a finite number or 'auto', found nan"),
        (["--set", "alpha"], 2, "--set alpha: expected KEY=VALUE"),
        (["--cache-size", "much"], 2, "'much' is not a size; write a number with a unit"),
        (["--cache", ""], 2, "'' is empty; name a folder"),
        (["--cache", __file__], 2, "is a file; name a folder"),
        (["--cache", "/another"], 2, "name at most one folder and one s3://bucket/prefix"),
        (["--cache", "s3://"], 2, "shared: 's3://' is no prefix on S3; write s3://bucket/prefix"),
        (["--cache", "s3://bucket/cache"], 1, "shared cache s3://bucket/cache/cache.json: no credentials for S3"),
        (["--share-downloads"], 2, "there is nowhere to share them; name --cache s3://bucket/prefix"),
        (["--set", "candidates.1.model=/none"], 1, "candidate 'clinc': /none: no such folder"),
        (
            ["--set", "candidates.1.model=s3://bucket/name"],
            1,
            "candidate 'clinc': s3://bucket/name: no credentials for S3",
        ),
        (["--set", "score.devices=[cpu]"], 1, "score.devices: 'cpu' has another form"),
        (["--set", f"publish.to=[{__file__}]"], 1, "is no folder; choose another place"),
        (["--set", "publish.to=[s3://bucket]"], 1, "no credentials for S3 could be had"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(run: Run, arguments: list[str], code: int, message: str):
    result = run("plan", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_bad_rows_are_named_by_their_numbers(run: Run, tmp_path: Path):
    good = '{"input": "a", "output": "b"}\n'
    (tmp_path / "rows.jsonl").write_text(f'{good}{{"input": "a"}}\n{good}nonsense\n')
    result = run("plan", "--set", f"examples={tmp_path}/rows.jsonl")
    assert result.exit_code == 1
    assert "\n    line 2: expected text in 'output'" in result.stderr
    assert "\n    line 4: this is no JSON" in result.stderr


def test_an_answer_longer_than_the_limit_is_refused_before_any_work(run: Run, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"input": "a", "output": "many words " * 9}))
    result = run("score", "--set", f"examples={tmp_path}/rows.jsonl", "--set", "score.max_length=8")
    assert result.exit_code == 1 and "row 1" in result.stderr and "but the limit is 8" in result.stderr


def test_merging_with_given_weights_loads_no_prefect_no_transformers_and_no_torch(path: Path, cache: CacheSettings):
    output = path.parent / "merged"
    program = (
        "import sys\nfrom flows.cli import cocktail\n"
        "try:\n    cocktail()\nfinally:\n"
        "    print(sorted({'prefect', 'transformers', 'sklearn', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "merge", path, "--cache", cache.folder, "--json", "--output", output]
    result = subprocess.run([*map(str, command), *GIVEN], capture_output=True, text=True, timeout=120, check=True)
    assert result.stderr.splitlines()[-1] == ("[]" if load_library() else "['torch']")
    assert json.loads(result.stdout)["weights"] == {"base": 0.5, "clinc": 0.25, "wordnet": 0.25}

    # By hand, in torch, on whole state dicts.
    base, clinc, wordnet = (
        load_file(model_of(path, name) / "model.safetensors") for name in ("base", "clinc", "wordnet")
    )
    merged = load_file(output / "model.safetensors")
    for name, tensor in merged.items():
        expected = 0.5 * base[name].float() + 0.25 * clinc[name].float() + 0.25 * wordnet[name].float()
        torch.testing.assert_close(tensor, expected.to(tensor.dtype), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("", 2, "'' is empty; name a folder"),
        ("recipe.yaml", 2, "is a file; name a folder"),
        ("taken", 1, "the folder is not empty; name a new one"),
        ("recipe.yaml/model", 1, "is no folder; choose another place"),
    ],
)
def test_merge_refuses_an_output_that_cannot_be_before_it_scores(
    run: Run, tmp_path: Path, output: str, code: int, message: str
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = run("merge", "--output", tmp_path / output if output else "")
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr and "scored" not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_merge_shows_how_far_candidates_moved_as_exactly_as_asked(run: Run, tmp_path: Path):
    result = run("merge", *GIVEN, "--output", tmp_path / "shown", "--health", "exact")
    assert result.exit_code == 0, result.stderr
    assert "How far candidates moved" in result.stdout and "estimated" not in result.stdout
    assert "clinc and wordnet" in result.stdout
    result = run("merge", *GIVEN, "--output", tmp_path / "quiet", "--health", "none")
    assert result.exit_code == 0 and "candidates moved" not in result.stdout


def test_merge_refuses_a_model_that_was_written_over_after_planning(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = tmp_path / "training"
    shutil.copytree(model_of(path, "wordnet"), model)
    weigh = direct.score_candidates

    def weigh_while_it_is_trained(*arguments: Any) -> Any:
        content = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(content[:-4] + b"\0" * 4)
        return weigh(*arguments)

    monkeypatch.setattr(direct, "score_candidates", weigh_while_it_is_trained)
    before = sorted(tmp_path.rglob("*"))
    result = run("merge", *GIVEN, "--output", tmp_path / "out", "--set", f"candidates.2.model={model}")
    assert result.exit_code == 1 and result.stdout == ""
    assert "training changed since it was planned:\n  - model.safetensors: planned sha256" in result.stderr
    assert "write models to a new folder while refreshes run" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_model_or_too_little_room_leaves_nothing_behind(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = tmp_path / "broken"
    shutil.copytree(model_of(path, "wordnet"), broken)
    tensors = load_file(broken / "model.safetensors")
    # The norm is a vector: planning samples matrices only, so this is found while merging.
    tensors["model.norm.weight"][0] = float("inf")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    before = sorted(tmp_path.rglob("*"))
    result = run("merge", *GIVEN, "--output", tmp_path / "out", "--set", f"candidates.2.model={broken}")
    assert result.exit_code == 1 and "tensor 'model.norm.weight' holds NaN or infinity in wordnet" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before

    # A full disk that works for every user: planning asks for the free space.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    for command in (["merge", *GIVEN, "--output", tmp_path / "out"], ["plan"]):
        result = run(*command)
        assert result.exit_code == 1 and "bytes to write, 1,000 free; make room" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def worker() -> Generator[None]:
    """The device's worker, kept between the tests that need one: it takes seconds to load its libraries."""
    with open_devices(DEVICES):
        yield


@pytest.mark.usefixtures("worker")
def test_score_tells_losses_and_the_weights_that_follow(run: Run):
    arguments = ["--set", "examples=[{input: 'Customer: hi', output: a}, {input: 'Customer: ho', output: b}]"]
    scored = json.loads(run("score", *arguments, "--json").stdout)
    assert scored["weights"].keys() == scored["losses"].keys() == {"base", "clinc", "wordnet"}
    assert scored["weights"]["clinc"] == 0.5 and sum(scored["weights"].values()) == pytest.approx(1)
    again = run("score", *arguments)
    assert again.exit_code == 0 and again.stderr.count("(cached)") == 3
    assert f"{scored['losses']['base']:.3f} ±" in again.stdout and "Effective number of models" in again.stdout


@pytest.mark.usefixtures("worker")
def test_evaluate_measures_any_models(run: Run, path: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": f"Text {n}\nTopic:", "output": "ab"[n % 2]}) + "\n" for n in range(4)))
    evaluate = f"evaluate=[{{name: letters, kind: classification, data: {rows}}}]"
    models = [model_of(path, "base"), model_of(path, "clinc")]
    result = run("evaluate", *models, "--set", evaluate, "--json")
    measured = json.loads(result.stdout)["evaluation"]
    assert [(row["task"], row["model"], row["n"]) for row in measured] == [("letters", str(m), 4) for m in models]
    assert "Evaluation" in run("evaluate", *models, "--set", evaluate).stdout


def test_evaluate_lists_every_model_it_cannot_read(run: Run, path: Path):
    result = run("evaluate", "no-reference", "/none", model_of(path, "base"))
    assert result.exit_code == 1
    assert "'no-reference' is not a reference" in result.stderr and "/none: no such folder" in result.stderr
    nothing = run("evaluate", "/none", "--set", "evaluate=[]")
    assert nothing.exit_code == 2 and "the recipe names no evaluation tasks" in nothing.stderr


def test_ctrl_c_ends_a_command_and_its_workers_at_once(path: Path, tmp_path: Path):
    rows = [{"input": f"Text {n}", "output": "a"} for n in range(50_000)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = [Path(sys.executable).with_name("cocktail"), "score", path, "--cache", tmp_path / "cache"]
    command += ["--set", f"examples={tmp_path}/rows.jsonl", "--set", "score.devices=[cpu:62]"]
    # As a terminal does it: a group of its own, in which SIGINT is not ignored.
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        workers = wait_for_workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.rstrip().endswith("Aborted!") and "Traceback" not in stderr
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def wait_for_workers(parent: int) -> list[int]:
    """Process ids of a process's children, as soon as there is one."""
    for _ in range(600):
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found = [
            int(child) for task in Path(f"/proc/{parent}/task").glob("*/children") for child in task.read_text().split()
        ]
        if found:
            return found
        assert children.exists(), "the command ended before it started a worker"
        time.sleep(0.1)
    raise AssertionError("the command started no worker")


@pytest.mark.usefixtures("prefect_server", "own_environment")
def test_refresh_says_by_its_exit_code_that_the_gate_said_no(
    content: dict[str, Any], tmp_path: Path, cache: CacheSettings
):
    path = write(tmp_path / "recipe.yaml", content | {"gate": {"rules": [{"task": "clinc", "min": 1.01}]}})
    result = invoke("refresh", path, "--cache", cache.folder, "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert told["status"] == "rejected" and "1.01" in told["gate"]["reasons"][0]
    again = invoke("refresh", path, "--cache", cache.folder)
    assert again.exit_code == 0 and "unchanged: the same inputs were decided before" in again.stdout
    page = tmp_path / "page.html"
    dry = invoke("refresh", path, "--cache", cache.folder, "--force", "--dry-run", "--report", page)
    assert dry.exit_code == 0 and "dry-run: stopped before publishing" in dry.stdout
    assert "the gate would reject this model" in page.read_text() and "page: " in dry.stdout


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """What the command sets for Prefect is taken back after the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_page_of_ones_own_is_for_dry_runs_and_needs_a_folder(run: Run, tmp_path: Path):
    live = run("refresh", "--report", str(tmp_path / "page.html"))
    assert live.exit_code == 2 and "--report is for dry runs" in live.stderr
    nowhere = run("refresh", "--dry-run", "--report", str(tmp_path / "none/page.html"))
    assert nowhere.exit_code == 2 and "--report: there is no folder" in nowhere.stderr


def test_refresh_refuses_what_cannot_succeed_before_prefect_starts(run: Run, tmp_path: Path):
    nowhere = run("refresh", "--set", "publish=null")
    assert nowhere.exit_code == 2 and nowhere.stderr.startswith("error: publish: the recipe names no place")
    missing = run("refresh", "--set", "candidates.1.model=/none")
    assert missing.exit_code == 1 and missing.stderr.startswith("error: 1 problem found before any work started")
    assert not (tmp_path / "releases").exists()


def test_what_is_no_error_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("flows.recipe.recipe_template", fail)
    assert isinstance(invoke("init", tmp_path / "my.yaml").exception, ZeroDivisionError)
    assert not (tmp_path / "my.yaml").exists()


def test_wrong_usage_has_its_own_exit_code():
    assert invoke("plan").exit_code == invoke("paln").exit_code == invoke("plan", "a.yaml", "--sat", "x").exit_code == 2
