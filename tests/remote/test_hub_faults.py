"""Faults of the Hub stand-in, as the real client meets them."""

import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

# huggingface_hub 2.4 hands files to its HTTP library in a way that the library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(hub):
    """A Hub with an empty repository, org/new."""
    hub.create_repo("org/new")
    return hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def test_a_status_comes_as_often_as_it_was_asked_for(hub, api):
    fault = hub.fail("model_info", "status", times=2, after=1, status=429, retry_after=7)
    seen = []
    for _ in range(4):
        try:
            seen.append(api.model_info("org/new").id)
        except HfHubHTTPError as error:
            seen.append((error.response.status_code, error.response.headers["Retry-After"]))
    assert seen == ["org/new", (429, "7"), (429, "7"), "org/new"]
    assert fault.seen == 2
    assert [request.status for request in hub.requests] == [200, 429, 429, 200]


def test_a_reset_does_nothing_and_a_lost_answer_does_its_work(hub, api):
    hub.fail("tag", "reset")
    # The class of the error belongs to the client's HTTP library: httpx or httpx2, by version.
    with pytest.raises(Exception, match="reset by peer"):
        api.create_tag("org/new", tag="v1")
    assert hub.refs("org/new")["tags"] == {}
    hub.fail("commit", "applied_then_lost")
    with pytest.raises(Exception, match="reset by peer"):
        api.upload_file(repo_id="org/new", path_or_fileobj=b"1", path_in_repo="a.txt")
    assert hub.files("org/new")["a.txt"] == b"1"
    assert [request.status for request in hub.requests if request.route in ("tag", "commit")] == [0, 0]


def test_a_flipped_byte_passes_the_client_and_is_found_by_checksums(hub, api, tmp_path):
    hub.commit("org/new", {"a.bin": b"content", "b.txt": b"text"})
    hub.fail("lfs_get", "flip", path="a.bin")
    path = Path(api.snapshot_download("org/new", cache_dir=tmp_path))
    # The middle byte, 0x74, inverted.
    assert (path / "a.bin").read_bytes() == b"con\x8bent"
    checked = api.verify_repo_checksums("org/new", cache_dir=tmp_path)
    assert [mismatch["path"] for mismatch in checked.mismatches] == ["a.bin"]


def test_a_truncated_download_is_resumed_by_range(hub, api, tmp_path, monkeypatch):
    # The client resumes at whole chunks, of 10 MiB as it comes.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.commit("org/new", {"a.bin": bytes(range(200)) * 50})
    hub.fail("lfs_get", "truncate")
    path = api.hf_hub_download("org/new", "a.bin", cache_dir=tmp_path)
    assert Path(path).read_bytes() == bytes(range(200)) * 50
    assert [request.status for request in hub.requests if request.route == "lfs_get"] == [200, 206]


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_an_upload_that_was_damaged_on_its_way_is_refused(hub, api, kind):
    hub.fail("lfs_put", kind)
    with pytest.raises(RuntimeError, match=r"a\.bin") as caught:
        api.upload_file(repo_id="org/new", path_or_fileobj=b"content", path_in_repo="a.bin")
    assert "BadDigest" in str(caught.value.__cause__)
    assert hub.repo("org/new").objects == {} and list(hub.files("org/new")) == [".gitattributes"]


def test_the_client_retries_an_upload_to_a_storage_that_is_away_for_a_while(hub, api):
    hub.fail("lfs_put", "status", status=503)
    api.upload_file(repo_id="org/new", path_or_fileobj=b"content", path_in_repo="a.bin")
    assert [request.status for request in hub.requests if request.route == "lfs_put"] == [503, 200]


def test_delays_and_expired_credentials_hit_one_route(hub, api):
    hub.fail("refs", "delay", seconds=0.3)
    hub.fail("commits", "expired", times=None)
    began = time.monotonic()
    api.list_repo_refs("org/new")
    assert time.monotonic() - began >= 0.3
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            api.list_repo_commits("org/new")
    assert api.model_info("org/new").id == "org/new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("modelinfo", "reset"), "no route 'modelinfo'; routes: auth_check, "),
        (("tree", "explode"), "no kind of fault 'explode'; kinds: status, "),
        (("tree", "delay", 1), r"delay has no option \['status'\]; options: \['seconds'\]"),
    ],
)
def test_a_fault_that_could_never_hit_is_refused(hub, arguments, message):
    options = {"status": 500} if len(arguments) == 3 else {}
    with pytest.raises(ValueError, match=message):
        hub.fail(*arguments, **options)


def test_a_failure_of_the_stand_in_itself_is_raised_when_it_stops():
    with pytest.raises(AssertionError, match=r"the Hub stand-in failed:(.|\n)*KeyError: 'files'"):
        with HubServer() as hub:
            hub.create_repo("org/new")
            session, headers = huggingface_hub.get_session(), {"Authorization": f"Bearer {hub.token}"}
            answer = session.post(f"{hub.endpoint}/api/models/org/new/preupload/main", json={}, headers=headers)
            assert answer.status_code == 500


def test_a_commit_whose_sender_dies_half_way_is_not_applied(hub):
    host, port = hub.endpoint.removeprefix("http://").split(":")
    lines = b'{"key": "header", "value": {"summary": "half"}}\n'
    head = f"POST /api/models/org/new/commit/main HTTP/1.1\r\nAuthorization: Bearer {hub.token}\r\n"
    before = hub.head("org/new")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % (len(lines) + 100) + lines)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert hub.head("org/new") == before and hub.requests == []


def test_the_server_stops_while_a_delayed_answer_is_due():
    with HubServer() as hub, socket.socket() as client:
        hub.fail("whoami", "delay", seconds=250)
        host, port = hub.endpoint.removeprefix("http://").split(":")
        client.connect((host, int(port)))
        client.sendall(b"GET /api/whoami-v2 HTTP/1.1\r\n\r\n")
        began = time.monotonic()
    assert time.monotonic() - began < 60
