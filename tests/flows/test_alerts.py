"""Alerts: what sets them off, what they say, and how often the command makes them. Their way is in
test_alerts_delivery.py.

Triggers are matched and texts are rendered by the server's own classes.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from click.testing import CliRunner, Result
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.server.events.actions import SendNotification
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities.user_templates import render_user_template_sync
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_site import ask

from flows.alert_rules import AlertSettings
from flows.alerts import apply_automations, as_plain, as_yaml, build_automations, find_blocks, parse_block
from flows.cli import cocktail
from tasks.errors import CocktailError
from tasks.recipe import Recipe

TEAM, CI = parse_block("custom-webhook/team"), parse_block("webhook/ci")
IDS = {TEAM: UUID(int=1), CI: UUID(int=2)}
MODEL = "s3://models/assistant"


def automation_of(name: str, **settings: Any) -> AutomationCore:
    built = {each.name: each for each in build_automations(AlertSettings(**settings), IDS)}
    return built[f"lm-cocktail: {name}"]


def event_of(event: str, payload: Mapping[str, Any], model: str = MODEL, **labels: str) -> ReceivedEvent:
    resource = {"prefect.resource.id": f"lm-cocktail.model.{model}", "prefect.resource.name": "assistant", **labels}
    return received(event, resource, payload={"destination": model, **payload})


def run_event(state: str, *, flow: str = "refresh", deployment: str = "nightly") -> ReceivedEvent:
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{uuid4()}",
        "prefect.resource.name": "refresh assistant",
        "prefect.state-message": "Process exited with status code: -9",
    }
    related = [
        {
            "prefect.resource.id": f"prefect.{role}.{uuid4()}",
            "prefect.resource.role": role,
            "prefect.resource.name": name,
        }
        for role, name in (("flow", flow), ("deployment", deployment))
    ]
    return received(f"prefect.flow-run.{state}", resource, related=related)


def received(event: str, resource: Mapping[str, str], **others: Any) -> ReceivedEvent:
    content = {"event": event, "resource": resource, "id": uuid4(), "occurred": datetime.now(UTC), **others}
    return ReceivedEvent.model_validate(content)


def goes_off(automation: AutomationCore, event: ReceivedEvent) -> bool:
    """Whether the server's trigger counts the event."""
    trigger = EventTrigger.model_validate(automation.trigger.model_dump(mode="json"))
    return trigger.covers(event) and trigger.expects(event.event)


def told(automation: AutomationCore, event: ReceivedEvent) -> tuple[str, str, dict[str, Any]]:
    """Subject, text, and the JSON for programs, as the server renders them for an event of flow run `night`."""
    SendNotification._register_filters_if_needed()
    context = {
        "event": event,
        "flow_run": SimpleNamespace(name="night", expected_start_time="04:00", work_pool_name="gpus"),
    }
    text, call = (action.model_dump() for action in automation.actions)
    # The server checks templates when an automation is made.
    SendNotification.model_validate(text)
    subject, body, payload = (
        render_user_template_sync(template, context) for template in (text["subject"], text["body"], call["payload"])
    )
    return subject, body, json.loads(payload)


def test_a_failure_is_told_with_its_step_and_its_model():
    event = event_of("lm-cocktail.refresh.failed", {"error": "StoreError", "message": "no space", "step": "merge"})
    failed = automation_of("failed")
    assert goes_off(failed, event)
    subject, text, call = told(failed, event)
    assert subject == "assistant: refresh failed"
    assert text == f"StoreError in step merge: no space\nModel: {MODEL}\nRun: night\nWhat was live is live."
    assert call["alert"] == "failed" and call["text"] == text and call["payload"]["step"] == "merge"


def test_a_failure_to_publish_does_not_say_that_nothing_went_live():
    # A copy to a second destination fails after the alias has moved.
    event = event_of("lm-cocktail.refresh.failed", {"error": "StoreError", "message": "403", "step": "publish"})
    _, text, _ = told(automation_of("failed"), event)
    assert text.splitlines()[-1] == f"The new version may be live: cocktail explain {MODEL}"


def test_a_rejection_is_told_with_its_reasons_and_its_report():
    payload = {"reasons": ["clinc: 0.5: failed", 'says "no"'], "champion": None, "report": "s3://models/r.html"}
    event = event_of("lm-cocktail.refresh.rejected", payload)
    rejected = automation_of("rejected")
    assert goes_off(rejected, event) and not goes_off(automation_of("failed"), event)
    subject, text, call = told(rejected, event)
    assert subject == "assistant: the gate said no"
    assert text.splitlines() == [
        "- clinc: 0.5: failed", '- says "no"', "Live: nothing", "Report: s3://models/r.html", f"Model: {MODEL}",
        "Run: night",
    ]  # fmt: skip
    assert call["payload"]["reasons"] == payload["reasons"]


def test_an_unchanged_night_is_told_from_the_nights_that_were_asked_for():
    def night(nights: int) -> ReceivedEvent:
        payload = {"nights": nights, "since": "2026-11-16T04:00:00+00:00", "reason": "v1 is live", "version": "v1"}
        label = {"lm-cocktail.nights-unchanged": "|" * nights}
        return event_of("lm-cocktail.refresh.unchanged", payload, **label)

    unchanged = automation_of("unchanged", nights=3)
    assert [goes_off(unchanged, night(nights)) for nights in (0, 2, 3, 4, 40)] == [False, False, True, True, True]
    assert unchanged.trigger.model_dump(mode="json")["within"] == 3 * 24 * 3600
    subject, text, _ = told(unchanged, night(4))
    assert subject == "assistant: nothing new for 4 nights"
    assert text.startswith("v1 is live\nSince: 2026-11-16T04:00:00+00:00\n")


def test_weights_that_jumped_and_versions_that_wait_are_told():
    event = event_of("lm-cocktail.weights.jumped", {"changes": ["law weighs 0.7 instead of 0.2"], "candidates": []})
    assert goes_off(automation_of("weights jumped"), event)
    subject, text, _ = told(automation_of("weights jumped"), event)
    assert subject == "assistant: the weights jumped"
    assert text == f"- law weighs 0.7 instead of 0.2\nModel: {MODEL}\nRun: night"
    event = event_of("lm-cocktail.release.pending", {"version": "v2", "alias": "champion", "reason": "..."})
    assert goes_off(automation_of("waiting"), event)
    subject, text, _ = told(automation_of("waiting"), event)
    assert subject == "assistant: v2 waits for a person"
    assert f"cocktail promote {MODEL} v2 --alias champion --reason WHY" in text


def test_one_model_can_be_watched_and_then_only_the_runs_of_its_deployment():
    own = event_of("lm-cocktail.refresh.failed", {})
    other = event_of("lm-cocktail.refresh.failed", {}, model="s3://models/assistant-2")
    failed = automation_of(f"failed [{MODEL}]", model=MODEL)
    assert goes_off(failed, own) and not goes_off(failed, other)
    crashed = automation_of(f"crashed [{MODEL}]", model=MODEL, deployment="nightly")
    assert goes_off(crashed, run_event("Crashed"))
    assert not goes_off(crashed, run_event("Crashed", deployment="weekly"))


def test_a_name_with_the_signs_of_patterns_is_no_pattern():
    model = "/models/[a]*/m"
    failed = automation_of(f"failed [{model}]", model=model)
    assert goes_off(failed, event_of("lm-cocktail.refresh.failed", {}, model=model))
    assert not goes_off(failed, event_of("lm-cocktail.refresh.failed", {}, model="/models/ab/m"))


def test_runs_of_other_flows_are_none_of_our_business():
    assert goes_off(automation_of("crashed"), run_event("Crashed"))
    assert goes_off(automation_of("crashed"), run_event("Crashed", flow="candidate-ready"))
    assert not goes_off(automation_of("crashed"), run_event("Crashed", flow="etl"))
    subject, text, _ = told(automation_of("crashed"), run_event("Crashed"))
    assert subject == "refresh assistant crashed"
    assert text.startswith("Process exited with status code: -9\nRun: night\n")
    _, text, _ = told(automation_of("late"), run_event("Late"))
    assert "due at 04:00" in text and "--pool gpus" in text
    # A run that a concurrency limit cancels was late and is over.
    assert goes_off(automation_of("late"), run_event("Cancelled"))
    # One that a worker would start, but for a run that takes longer, lacks no worker.
    assert goes_off(automation_of("late"), run_event("AwaitingConcurrencySlot"))


def test_a_run_with_a_sign_of_life_or_an_end_of_any_name_is_no_zombie():
    zombies = automation_of("zombies", silent_minutes=12)
    for state in ("heartbeat", "Completed", "Rejected", "Unchanged", "Suspended"):
        assert goes_off(zombies, run_event(state))
    assert zombies.trigger.model_dump(mode="json")["within"] == 12 * 60


def test_what_is_printed_is_what_prefect_reads():
    built = build_automations(AlertSettings(), IDS)
    plain = yaml.safe_load(as_yaml(as_plain(built)))
    # As `prefect automation create --from-file` does with each of them.
    assert [AutomationCore.model_validate(each) for each in plain["automations"]] == built


@pytest.fixture(scope="module")
def blocks(prefect_server: None) -> Iterator[None]:
    """Blocks that alerts name. Alerts are removed afterwards: on every event of other tests they would try to tell."""
    CustomWebhookNotificationBlock(name="team", url="https://chat.example/hook").save("team")
    Webhook(url="https://ci.example/hook").save("ci")  # pyright: ignore[reportArgumentType]
    Secret(value="x").save("hush")
    yield
    automations = f"{PREFECT_API_URL.value()}/automations"
    for each in ask("POST", f"{automations}/filter", {}).raise_for_status().json():
        if each["name"].startswith("lm-cocktail: "):
            ask("DELETE", f"{automations}/{each['id']}").raise_for_status()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cocktail, ["alerts", *map(str, arguments)])


def on_the_server(name: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_automations_by_name(name)


def test_the_command_makes_alerts_once_and_then_changes_them(blocks: None):
    done = invoke("--notify", "custom-webhook/team", "--notify", "webhook/ci", "--nights", 3)
    assert done.exit_code == 0, done.output
    assert "created lm-cocktail: failed" in done.output and "told: custom-webhook/team, webhook/ci" in done.output
    [first] = on_the_server("lm-cocktail: unchanged")
    assert [action.type for action in first.actions] == ["send-notification", "call-webhook"]
    with get_client(sync_client=True) as client:
        client.pause_automation(first.id)

    changed = json.loads(invoke("--notify", "custom-webhook/team", "--nights", 5, "--json").stdout)["automations"]
    assert {each["change"] for each in changed} == {"updated"} and len(changed) == 8
    [again] = on_the_server("lm-cocktail: unchanged")
    assert again.id == first.id and len(again.actions) == 1
    assert again.trigger.match.root["lm-cocktail.nights-unchanged"] == "|||||*"
    assert not again.enabled, "paused by hand, so it stays paused"
    [zombies] = on_the_server("lm-cocktail: zombies")
    assert zombies.actions[0].model_dump(include={"type", "state", "name"}) == {
        "type": "change-flow-run-state", "state": "CRASHED", "name": "Crashed",
    }  # fmt: skip


def test_one_model_has_alerts_of_its_own_beside_those_of_all(blocks: None):
    automations = build_automations(AlertSettings(model=MODEL, deployment="nightly"), find_blocks([TEAM]))
    apply_automations(automations)
    [late] = on_the_server(f"lm-cocktail: late [{MODEL}]")
    assert [each.root["prefect.resource.role"] for each in late.trigger.match_related] == ["flow", "deployment"]


def test_all_blocks_that_cannot_be_told_are_named_at_once(blocks: None):
    wanted = [parse_block("slack-webhook/nobody"), parse_block("secret/hush"), TEAM]
    with pytest.raises(CocktailError) as caught:
        find_blocks(wanted)
    assert "no block slack-webhook/nobody: `prefect block create slack-webhook` shows the page" in str(caught.value)
    assert "block secret/hush sends no messages" in str(caught.value)
    assert "team" not in str(caught.value)


def test_templates_are_printed_without_a_server(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with temporary_settings({PREFECT_API_URL: None}):
        done = invoke("--notify", "slack-webhook/team", "--model", "./releases/assistant", "--print")
    assert done.exit_code == 0, done.output
    assert "# 00000000-0000-0000-0000-000000000001 stands for the block slack-webhook/team" in done.stdout
    failed, *_ = yaml.safe_load(done.stdout)["automations"]
    # Recipes hold absolute paths, and so do events.
    assert failed["trigger"]["match"]["prefect.resource.id"] == f"lm-cocktail.model.{tmp_path}/releases/assistant"
    assert failed["actions"][0]["block_document_id"] == str(UUID(int=1))
    assert json.loads(invoke("--notify", "webhook/ci", "--print", "--json").stdout)["automations"]


def test_a_model_is_watched_where_its_events_say_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    recipe = {"name": "a", "model_type": "decoder", "candidates": [{"name": "one", "model": "org/one"}]}
    for given in ("../releases", "./releases", "../link/releases", f"{tmp_path}/link/releases"):
        settings = recipe | {"weigh": {"strategy": "uniform"}, "publish": {"to": [given]}}
        published = Recipe.model_validate(settings, context={"folder": tmp_path / "here"}).publish
        monkeypatch.chdir(tmp_path / "here")
        found = invoke("--notify", "slack-webhook/team", "--model", f"{given}/a", "--print", "--json")
        failed, *_ = json.loads(found.stdout)["automations"]
        assert published is not None
        assert failed["trigger"]["match"]["prefect.resource.id"] == f"lm-cocktail.model.{published.to[0]}/a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "who is told? --notify slack-webhook/NAME"),
        (["--notify", "slack"], "slack: write a block as type/name, such as slack-webhook/team"),
        (["--notify", "webhook/ci", "--deployment", "nightly"], "--deployment goes with --model"),
        (["--notify", "webhook/ci", "--model", "assistant"], "names no releases; write destination/name"),
        (["--notify", "webhook/ci", "--nights", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_without_a_server_that_stays_there_are_no_alerts():
    with temporary_settings({PREFECT_API_URL: None}):
        done = invoke("--notify", "webhook/ci")
    assert done.exit_code == 1
    assert "alerts live on a Prefect server, and none is set" in done.output
