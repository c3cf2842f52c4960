"""The Hub's client and its faults, with the real client over loopback."""

import logging
import re
import threading
import traceback

import pytest
from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
)

from tasks.errors import NotFoundError, StoreError, TransientStoreError, is_transient
from tasks.remote.access import HubAccess, use_access
from tasks.remote.hub import ANSWER_SECONDS, call_hub, hub_api, hub_errors, status_of

WHERE = "https://hub.example/org/new"

# huggingface_hub 2.4 hands files to its HTTP library in a way that the library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(hub):
    """A Hub with one repository."""
    hub.create_repo("org/new")
    hub.commit("org/new", {"config.json": b"{}"})
    hub.requests.clear()
    return hub


def look():
    return call_hub(lambda: hub_api().model_info("org/new", timeout=ANSWER_SECONDS).id, WHERE)


def test_a_client_goes_where_the_environment_says_with_its_token(hub):
    assert hub_api().endpoint == hub.endpoint
    assert call_hub(hub_api().whoami, WHERE)["name"] == hub.user


def test_access_that_a_run_was_given_beats_the_environment(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown1234")
    with use_access(hub=HubAccess(token=hub.read_token, endpoint=hub.endpoint)):
        assert look() == "org/new"


def test_no_call_waits_for_ever():
    session = get_session()
    session.timeout = None
    hub_api()
    assert (session.timeout.connect, session.timeout.read) == (10, 300)
    session.timeout = 7
    hub_api()
    # What a program that we are part of has set stands.
    assert session.timeout.read == 7
    session.timeout = None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_is_busy_for_a_while_is_asked_again(hub, pauses, caplog, status):
    caplog.set_level(logging.WARNING, "tasks.remote")
    hub.fail("model_info", "status", times=2, status=status, message="come back")
    assert look() == "org/new"
    assert hub.count("model_info") == 3
    assert len(pauses) == 2
    assert f"{WHERE} failed (attempt 1 of 5): {WHERE}: the Hub answered {status}: come back" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_stays_busy_is_asked_five_times(hub, pauses, status):
    hub.fail("model_info", "status", times=None, status=status, message="come back")
    with pytest.raises(TransientStoreError) as caught:
        look()
    assert str(caught.value) == (
        f"{WHERE} failed 5 times in 0 s, the last time with: the Hub answered {status}: come back; try again later"
    )
    assert (hub.count("model_info"), len(pauses), status_of(caught.value)) == (5, 4, status)
    assert is_transient(caught.value)


def test_the_pause_that_the_hub_asks_for_is_kept(hub, pauses):
    hub.fail("model_info", "status", status=429, retry_after=7)
    assert look() == "org/new"
    assert 7 <= pauses[0] <= 7.5


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(hub, pauses):
    hub.fail("model_info", "status", status=429, retry_after=3600)
    with pytest.raises(TransientStoreError, match=r"failed once.*left alone for 3600 s") as caught:
        look()
    assert (hub.count("model_info"), pauses, caught.value.retry_after) == (1, [], 3600)


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_a_connection_that_breaks_for_a_while_is_opened_again(hub, pauses, kind):
    hub.fail("model_info", kind, times=2)
    assert look() == "org/new"
    assert hub.count("model_info") == 3


def test_a_connection_that_always_breaks_is_opened_five_times(hub, pauses):
    hub.fail("model_info", "reset", times=None)
    expected = f"^{WHERE} failed 5 times in 0 s, the last time with: the Hub cannot be reached: .*; try again later$"
    with pytest.raises(TransientStoreError, match=expected):
        look()
    assert hub.count("model_info") == 5


def test_where_nobody_listens_the_hub_cannot_be_reached(monkeypatch, pauses):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientStoreError, match=r"the Hub cannot be reached: .*Connection refused"):
        look()
    assert len(pauses) == 4


def test_a_hub_that_never_answers_is_asked_again(hub, pauses):
    hub.fail("model_info", "delay", seconds=0.5)
    assert call_hub(lambda: hub_api().model_info("org/new", timeout=0.2).id, WHERE) == "org/new"
    assert len(pauses) == 1
    # The one that was given up is logged when its delay ends: not into the log of the next test.
    while hub.count("model_info") < 2:
        threading.Event().wait(0.01)


def test_a_certificate_that_is_not_trusted_is_refused_once(monkeypatch, pauses, untrusted_endpoint):
    url, handshakes = untrusted_endpoint
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(
        StoreError, match=f"^{WHERE}: the Hub's certificate cannot be trusted .* in SSL_CERT_FILE$"
    ) as caught:
        look()
    assert (len(handshakes), pauses, is_transient(caught.value)) == (1, [], False)


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://hub.example", "https://", "http://[bad", "http://hub:port"])
def test_an_endpoint_that_is_no_url_makes_no_client(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    expected = f"the Hub cannot be used as it is set up: {endpoint!r} is no URL; look at HF_ENDPOINT, or at the block"
    with pytest.raises(StoreError, match=re.escape(expected)) as caught:
        hub_api()
    assert not is_transient(caught.value)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ({"status": 401, "message": "Invalid credentials in Authorization header"}, StoreError,
         r"the Hub does not know the token, or it has expired \(401: Invalid .*; set HF_TOKEN, or run `hf auth login`"),
        ({"status": 403, "message": "no"}, StoreError, r"the token may not do this \(403: no\); use one with write"),
        ({"status": 403, "message": "Access to this resource is disabled."}, StoreError, "repository was disabled"),
        ({"status": 403, "code": "GatedRepo"}, StoreError, "is gated and the token at hand has no access; ask for"),
        ({"status": 404, "code": "RepoNotFound"}, NotFoundError, "there is no such repository, or it is private"),
        ({"status": 404, "code": "RevisionNotFound"}, NotFoundError, "there is no such revision; the branch or tag"),
        ({"status": 404, "code": "EntryNotFound"}, NotFoundError, "there is no such file; it may have been moved"),
        ({"status": 404, "message": "what?"}, NotFoundError, r"there is no such thing on the Hub \(404: what\?\)"),
        ({"status": 409, "message": "moved"}, StoreError, r"changed by another meanwhile \(409: moved\)"),
        ({"status": 412, "message": "moved"}, StoreError, r"changed by another meanwhile \(412: moved\)"),
        ({"status": 400, "message": "bad"}, StoreError, "the Hub answered 400: bad"),
        ({"status": 422, "message": "bad"}, StoreError, "the Hub answered 422: bad"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_asked_once(hub, pauses, fault, kind, message):
    hub.fail("model_info", "status", times=None, **fault)
    with pytest.raises(StoreError, match=f"^{WHERE}: .*{message}") as caught:
        look()
    assert (hub.count("model_info"), pauses) == (1, [])
    assert type(caught.value) is kind
    assert (status_of(caught.value), is_transient(caught.value)) == (fault["status"], False)


def test_a_token_that_ran_out_is_told_apart(hub, pauses):
    hub.expire_tokens()
    with pytest.raises(StoreError, match="does not know the token, or it has expired"):
        look()


def test_names_that_no_repository_can_have_are_refused_without_a_request(hub):
    with pytest.raises(StoreError, match=f"^{WHERE}: Repo id must"):
        call_hub(lambda: hub_api().model_info("a/b/c/d"), WHERE)
    assert hub.requests == []


def test_a_branch_that_moved_is_a_conflict_that_the_caller_can_see(hub, pauses):
    first = hub_api().model_info("org/new").sha
    hub.commit("org/new", {"a.txt": b"1"})
    with pytest.raises(
        StoreError, match=r"changed by another meanwhile \(412: .*; look at it, then run again"
    ) as caught:
        with hub_errors(WHERE):
            hub_api().upload_file(repo_id="org/new", path_or_fileobj=b"2", path_in_repo="a.txt", parent_commit=first)
    assert status_of(caught.value) == 412


def test_offline_mode_is_no_fault_of_the_network(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for call in (
        lambda: hub_api().model_info("org/new"),
        lambda: hub_api().hf_hub_download("org/new", "config.json", cache_dir=tmp_path),
        lambda: hub_api().snapshot_download("org/new", cache_dir=tmp_path),
    ):
        with pytest.raises(StoreError, match="HF_HUB_OFFLINE") as caught:
            call_hub(call, WHERE)
        assert not is_transient(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (503, TransientStoreError, "the Hub answered 503: Fault"),
        (403, StoreError, "the token may not do this"),
        (404, NotFoundError, "there is no such thing on the Hub"),
    ],
)
def test_a_download_without_an_answer_says_why(hub, pauses, tmp_path, status, kind, message):
    hub.fail("resolve_head", "status", times=None, status=status)
    with pytest.raises(kind, match=message) as caught, hub_errors(WHERE):
        hub_api().hf_hub_download("org/new", "config.json", cache_dir=tmp_path)
    # The client says "check your connection" to all of these.
    assert isinstance(caught.value.__cause__, LocalEntryNotFoundError)
    assert type(caught.value) is kind
    assert status_of(caught.value) == status


def test_a_gated_download_is_refused_once(hub, pauses, tmp_path):
    hub.fail("resolve_head", "status", times=None, status=401, code="GatedRepo")
    with pytest.raises(StoreError, match="gated"):
        call_hub(lambda: hub_api().hf_hub_download("org/new", "config.json", cache_dir=tmp_path), WHERE)
    assert hub.count("resolve_head") == 1


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileMetadataError("no ETag"), StoreError, r"does not speak as the Hub does \(no ETag\); look at HF_ENDPOINT"),
        (LocalTokenNotFoundError("Token is required"), StoreError, "a token is needed and there is none; set HF_TOKEN"),
        (
            LocalEntryNotFoundError("no cache"),
            StoreError,
            "not in the cache, and the Hub is not asked; unset HF_HUB_OFF",
        ),
        (EntryNotFoundError("gone"), NotFoundError, "there is no such file"),
        (
            OSError("Consistency check failed: 3 bytes"),
            TransientStoreError,
            "the download broke off: Consistency check",
        ),
        (TimeoutError(), TransientStoreError, "the Hub cannot be reached: TimeoutError"),
    ],
)
def test_what_the_client_raises_by_itself_is_told_apart(error, kind, message):
    with pytest.raises(kind, match=f"^{WHERE}: .*{message}") as caught, hub_errors(WHERE):
        raise error
    assert type(caught.value) is kind
    assert (caught.value.__cause__, status_of(caught.value)) == (error, None)


def test_a_fault_of_this_machines_disk_is_let_through():
    with pytest.raises(OSError, match="No space left"), hub_errors(WHERE):
        raise OSError(28, "No space left on device")


def test_no_secret_is_in_a_message_or_a_traceback(hub, pauses):
    token = "hf_" + "s3cret" * 4
    hub.fail("lfs_get", "status", times=None, status=403, message=f"token {token} is no good")
    sha = hub.commit("org/new", {"model.safetensors": bytes(100)})
    url = f"{hub.endpoint}/org/new/resolve/{sha}/model.safetensors"
    with pytest.raises(StoreError, match=r"the token may not do this \(403: token hf_\.\.\. is no good\)") as caught:
        with hub_errors(WHERE):
            download(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "for url" in shown or "Cannot access content at" in shown
    assert not any(secret in shown for secret in ("X-Amz-Signature", "s3crets3cret", hub.token))


def download(url):
    """As the client does it: the answer to a signed URL that failed says that URL."""
    from huggingface_hub.utils import hf_raise_for_status

    response = get_session().get(url, follow_redirects=True)
    assert "Signature" in str(response.url)
    hf_raise_for_status(response)
