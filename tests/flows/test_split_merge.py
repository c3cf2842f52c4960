"""A whole night whose merge is shared, with threads in the place of nodes; tests/flows/test_ray.py has real nodes."""

import copy
import functools
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.context import FlowRunContext
from prefect.task_runners import ThreadPoolTaskRunner
from s3_server import S3Server
from seeding import put_on_s3

from flows.nodes import on_node
from flows.refresh import refresh
from tasks.recipe import Recipe
from tasks.registry.releases import open_registry
from tasks.registry.verification import find_damage
from tasks.settings import CacheSettings
from tests.flows.conftest import DEMO, read

pytestmark = pytest.mark.usefixtures("prefect_server", "scores_here")


class ThreadsAsNodes(ThreadPoolTaskRunner):
    """Runs what would go to a node as it would run there, one at a time."""

    one_at_a_time = threading.Lock()

    def submit(self, task: Any, *arguments: Any, **options: Any) -> Any:
        there = copy.copy(task)
        run = on_node(task.fn, READ_BY_ENVIRONMENT, 0)

        def one(*args: Any, **kwargs: Any) -> Any:
            with self.one_at_a_time:
                return run(*args, **kwargs)

        there.fn = functools.wraps(run)(one)
        return super().submit(there, *arguments, **options)


READ_BY_ENVIRONMENT: Any = Recipe.model_fields["connections"].default


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def runner_of(*_: object) -> Generator[None]:
        context = FlowRunContext.get()
        assert context is not None
        with ThreadsAsNodes(max_workers=2) as runner, context.model_copy(update={"task_runner": runner}):
            yield

    monkeypatch.setattr("flows.refresh.runner_of", runner_of)
    monkeypatch.setattr("flows.split_merge.runner_of", runner_of)


@pytest.fixture
def on_s3(content: dict[str, Any], s3: S3Server) -> dict[str, Any]:
    """The recipe with its models on S3, in small files, merged by nodes."""
    s3.create_bucket("team")
    names = {"base", *(Path(entry["model"]).name for entry in content["candidates"])}
    for name in names:
        put_on_s3(s3, f"s3://team/models/{name}", DEMO / "models/decoder" / name)
    candidates = [entry | {"model": f"s3://team/models/{Path(entry['model']).name}"} for entry in content["candidates"]]
    return content | {
        "base": "s3://team/models/base",
        "candidates": candidates,
        "runner": "ray",
        "merge": {"split": True, "max_shard_size": "500KB"},
        "publish": {"to": ["s3://team/releases"]},
    }


def test_from_s3_to_s3_the_release_is_that_of_one_machine(
    on_s3: dict[str, Any], nodes: None, s3: S3Server, tmp_path: Path
):
    shared = CacheSettings(folder=str(tmp_path / "cache"), shared="s3://team/cache")
    result = refresh(read(on_s3), cache=shared)
    assert result["status"] == "published"
    alone = on_s3 | {
        "runner": "threads",
        "merge": {"max_shard_size": "500KB"},
        "publish": {"to": [str(tmp_path / "alone")]},
    }
    expected = refresh(read(alone), cache=CacheSettings(folder=str(tmp_path / "another")))
    ours, theirs = (open_registry(place, on_s3["name"]) for place in ("s3://team/releases", str(tmp_path / "alone")))
    assert result["version"].partition("-")[2] == expected["version"].partition("-")[2]
    of_model = {path: file for path, file in manifest(theirs, expected).items() if "report" not in path}
    assert len([path for path in of_model if path.endswith(".safetensors")]) == 3
    found = manifest(ours, result)
    weights = [path for path in of_model if path.endswith((".safetensors", ".json")) and "/" not in path]
    assert {path: found[path] for path in weights} == {path: of_model[path] for path in weights}
    assert find_damage(ours, result["version"]) == []
    copied = [request for request in s3.requests if request.operation == "CopyObject"]
    assert {Path(request.path).name for request in copied} >= {path for path in weights if "safetensors" in path}
    assert s3.client().list_objects_v2(Bucket="team", Prefix="cache/merged")["KeyCount"] == 0
    # As a night leaves it that is killed when all is decided.
    fingerprint = ours.read_manifest(result["version"])["model_fingerprint"]
    s3.client().put_object(Bucket="team", Key=f"cache/merged/{fingerprint}/model.safetensors", Body=b"x")
    assert refresh(read(on_s3), cache=shared)["status"] == "unchanged"
    assert s3.client().list_objects_v2(Bucket="team", Prefix="cache/merged")["KeyCount"] == 0


def test_what_a_killed_night_has_merged_is_not_merged_again(
    on_s3: dict[str, Any], nodes: None, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import flows.split_merge

    shared = CacheSettings(folder=str(tmp_path / "cache"), shared="s3://team/cache")

    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flows.split_merge, "finish_split_merge", killed)
        with pytest.raises(BaseException):  # noqa: B017
            refresh(read(on_s3), cache=shared)
    s3.requests.clear()
    # On another machine.
    result = refresh(read(on_s3), cache=shared.model_copy(update={"folder": str(tmp_path / "other")}))
    assert result["status"] == "published"
    stored = [each for each in s3.requests if "/cache/merged/" in each.path and each.method in ("PUT", "POST")]
    assert not [each for each in stored if each.path.endswith(".safetensors")]


def test_in_a_folder_that_all_nodes_see_nothing_goes_through_s3(
    on_s3: dict[str, Any], nodes: None, s3: S3Server, tmp_path: Path
):
    recipe = read(on_s3 | {"publish": {"to": [str(tmp_path / "releases")]}})
    result = refresh(recipe, cache=CacheSettings(folder=str(tmp_path / "cache")))
    assert result["status"] == "published"
    assert find_damage(open_registry(str(tmp_path / "releases"), recipe.name), result["version"]) == []
    assert not [each for each in s3.requests if each.method in ("PUT", "POST")]
    assert not list((tmp_path / "cache/work").glob("**/*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runner": "threads"}, "merge.split: nodes of a cluster share the merge, and runner is threads"),
        ({"merge": {"split": True, "device": "cuda:0"}}, "merge.split: nodes merge on their processors"),
    ],
)
def test_what_does_not_go_together_is_refused(on_s3: dict[str, Any], changes: dict[str, Any], message: str):
    with pytest.raises(Exception, match=message):
        read(on_s3 | changes)


def manifest(registry: Any, result: dict[str, Any]) -> dict[str, Any]:
    return registry.read_manifest(result["version"])["files"]
