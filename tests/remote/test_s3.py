"""S3's client and its faults, with the real client over loopback."""

import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError
from botocore.parsers import ResponseParserError

from tasks.errors import NotFoundError, StoreError, TransientStoreError, is_transient
from tasks.remote.access import S3Access, use_access
from tasks.remote.retries import with_retries
from tasks.remote.s3 import (
    S3Place,
    error_code,
    is_conflict,
    is_damaged,
    is_missing,
    parse_s3,
    s3_client,
    s3_errors,
)
from tasks.remote.s3_faults import translate

WHERE = "s3://models/a/config.json"
OBJECT = {"Bucket": "models", "Key": "a/config.json"}
BODY = b'{"a": 1}'


@pytest.fixture
def s3(s3):
    """S3 with one object."""
    s3.create_bucket("models")
    s3.client().put_object(**OBJECT, Body=BODY)
    s3.requests.clear()
    return s3


def read():
    with s3_errors(WHERE):
        return s3_client().get_object(**OBJECT)["Body"].read()


def count(s3, operation):
    return sum(request.operation == operation for request in s3.requests)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://models", S3Place("models", "")),
        ("s3://models/", S3Place("models", "")),
        ("s3://models/a/b/", S3Place("models", "a/b")),
    ],
)
def test_a_place_is_a_bucket_and_a_prefix(uri, place):
    assert parse_s3(uri) == place


def test_keys_and_uris_have_one_slash_between_their_parts():
    assert S3Place("models", "a").key("b/c") == "a/b/c"
    assert S3Place("models", "").key("b") == "b"
    assert S3Place("models", "a").uri("b") == "s3://models/a/b"
    assert S3Place("models", "").uri() == "s3://models"


def test_a_client_is_made_once_for_one_environment(s3, monkeypatch):
    client = s3_client()
    assert s3_client() is client
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert s3_client() is not client


def test_access_that_a_run_was_given_beats_the_environment(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    given = S3Access(s3.endpoint, s3.region, s3.access_key_id, s3.secret_access_key)
    with use_access(s3=given):
        assert read() == BODY


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")])
def test_a_server_that_is_busy_for_a_while_is_asked_again(s3, pauses, caplog, status, code):
    caplog.set_level(logging.WARNING, "tasks.remote")
    s3.fail("GetObject", "status", times=2, status=status)
    assert read() == BODY
    assert count(s3, "GetObject") == 3
    # 0.5 s doubled with each attempt, of which the upper half is drawn from.
    assert [low <= pause <= 2 * low for low, pause in zip([0.5, 1], pauses, strict=True)] == [True, True]
    assert f"S3 request failed (attempt 1 of 5): GetObject: S3 answered {code}" in caplog.text


@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "Other"), (400, "RequestTimeout")]
)
def test_a_server_that_stays_busy_is_asked_five_times(s3, pauses, status, code):
    s3.fail("GetObject", "status", times=None, status=status, code=code)
    expected = rf"^s3://models/a/config.json: S3 answered {code} after 5 attempts: Fault asked.*; try again later$"
    with pytest.raises(TransientStoreError, match=expected) as caught:
        read()
    assert (count(s3, "GetObject"), len(pauses), caught.value.attempts) == (5, 4, 5)
    assert is_transient(caught.value)


def test_retries_around_the_client_do_not_multiply_its_own(s3, pauses):
    s3.fail("GetObject", "status", times=None)
    with pytest.raises(
        TransientStoreError, match=f"^reading {WHERE} failed 5 times in 0 s, the last time with: S3 answ"
    ):
        with_retries(read, f"reading {WHERE}")
    assert count(s3, "GetObject") == 5


def test_the_pause_that_the_server_asks_for_is_kept(s3, pauses):
    s3.fail("GetObject", "status", retry_after=7)
    s3.fail("GetObject", "status", retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert read() == BODY
    assert 7 <= pauses[0] <= 7.5
    assert 20 <= pauses[1] <= 31


def test_a_server_that_asks_for_an_hour_is_not_waited_for(s3, pauses):
    s3.fail("GetObject", "status", retry_after=3600)
    with pytest.raises(TransientStoreError, match=r"config.json: S3 answered SlowDown: Fault") as caught:
        read()
    assert (count(s3, "GetObject"), pauses, caught.value.retry_after) == (1, [], 3600)


def test_a_connection_that_breaks_for_a_while_is_opened_again(s3, pauses):
    s3.fail("GetObject", "reset", times=2)
    assert read() == BODY
    assert count(s3, "GetObject") == 3


def test_a_connection_that_always_breaks_is_opened_five_times(s3, pauses):
    s3.fail("HeadObject", "reset", times=None)
    with pytest.raises(TransientStoreError, match=r"^s3://models: S3 cannot be reached after 5 attempts: ") as caught:
        with s3_errors("s3://models"):
            s3_client().head_object(**OBJECT)
    assert (count(s3, "HeadObject"), caught.value.attempts) == (5, 5)


def test_where_nobody_listens_the_url_is_named(s3, monkeypatch, pauses):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    expected = 'cannot be reached after 5 attempts: .*"http://127.0.0.1:9/models/a/config.json"; try again later$'
    with pytest.raises(TransientStoreError, match=expected):
        read()


def test_a_server_that_never_answers_is_asked_again(s3, pauses, monkeypatch):
    monkeypatch.setattr("tasks.remote.s3._READ_SECONDS", 0.2)
    s3.fail("GetObject", "delay", seconds=0.5)
    # A region that no other test has, so that a client is made with this limit.
    client = s3_client(S3Access(region="eu-test-1"))
    with s3_errors(WHERE):
        assert client.get_object(**OBJECT)["Body"].read() == BODY
    assert len(pauses) == 1


def test_a_certificate_that_is_not_trusted_is_refused_once(s3, monkeypatch, pauses, untrusted_endpoint):
    url, handshakes = untrusted_endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    with pytest.raises(
        StoreError, match=r"^s3://.*: the certificate .* cannot be trusted .*in AWS_CA_BUNDLE$"
    ) as caught:
        read()
    assert (len(handshakes), pauses, is_transient(caught.value)) == (1, [], False)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (
            403,
            "AccessDenied",
            r"S3 refused access \(AccessDenied: Fault asked .* look at credentials, policy and region",
        ),
        (403, "SignatureDoesNotMatch", "S3 refused access"),
        (400, "ExpiredToken", r"the credentials for S3 have expired \(ExpiredToken\); renew them, then run again"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region .*; set AWS_DEFAULT_REGION"),
        (400, "InvalidRequest", "S3 answered InvalidRequest: Fault asked for by the test"),
        (405, "MethodNotAllowed", "S3 answered MethodNotAllowed"),
    ],
)
def test_what_will_not_pass_is_asked_once(s3, pauses, status, code, message):
    s3.fail("GetObject", "status", times=None, status=status, code=code)
    with pytest.raises(StoreError, match=f"^{WHERE}: {message}") as caught:
        read()
    assert (count(s3, "GetObject"), pauses) == (1, [])
    assert type(caught.value) is StoreError
    assert not is_transient(caught.value)


def test_a_bucket_that_says_it_lives_elsewhere_is_named(s3, pauses):
    s3.fail("GetObject", "status", times=None, status=301)
    with pytest.raises(StoreError, match=r"the bucket is in another region \(PermanentRedirect"):
        read()
    # botocore asks where it lives before it gives up.
    assert pauses == [0]


def test_credentials_that_expire_are_told_apart_even_where_the_answer_has_no_body(s3, pauses):
    s3.expire_credentials()
    with pytest.raises(StoreError, match="credentials for S3 have expired"):
        read()
    with pytest.raises(StoreError, match="S3 answered 400 and no more; mostly the credentials have expired"):
        with s3_errors(WHERE):
            s3_client().head_object(**OBJECT)
    assert (count(s3, "GetObject"), count(s3, "HeadObject")) == (1, 1)


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("get_object", {"Bucket": "models", "Key": "b"}, "NoSuchKey"),
        ("head_object", {"Bucket": "models", "Key": "b"}, "404"),
        ("list_objects_v2", {"Bucket": "other"}, "NoSuchBucket"),
        ("list_parts", {"Bucket": "models", "Key": "b", "UploadId": "c"}, "NoSuchUpload"),
    ],
)
def test_what_is_not_there_is_not_found(s3, pauses, operation, arguments, code):
    expected = rf"^s3://b: there is no such thing on S3 \({code}\); look at bucket, prefix and region$"
    with pytest.raises(NotFoundError, match=expected) as caught, s3_errors("s3://b"):
        getattr(s3_client(), operation)(**arguments)
    assert isinstance(caught.value.__cause__, ClientError)
    assert is_missing(caught.value.__cause__)
    assert (len(s3.requests), pauses) == (1, [])


@pytest.mark.parametrize(
    ("fault", "code"),
    [(None, "PreconditionFailed"), ((409, "ConditionalRequestConflict"), "ConditionalRequestConflict")],
)
def test_a_condition_that_does_not_hold_is_the_callers(s3, pauses, fault, code):
    if fault:
        s3.fail("PutObject", "status", times=None, status=fault[0], code=fault[1])
    with pytest.raises(ClientError) as caught, s3_errors(WHERE):
        s3_client().put_object(**OBJECT, Body=b"2", IfNoneMatch="*")
    assert is_conflict(caught.value)
    assert error_code(caught.value) == code
    assert count(s3, "PutObject") == 1


def test_a_lost_answer_to_a_conditional_write_ends_as_a_conflict_with_ourselves(s3, pauses):
    s3.fail("PutObject", "applied_then_lost")
    with pytest.raises(ClientError) as caught, s3_errors(WHERE):
        s3_client().put_object(Bucket="models", Key="new", Body=b"2", IfNoneMatch="*")
    assert is_conflict(caught.value)
    assert s3.client().get_object(Bucket="models", Key="new")["Body"].read() == b"2"


def test_a_body_that_was_damaged_on_its_way_up_is_refused_and_left_to_the_caller(s3, pauses):
    s3.fail("PutObject", "flip", direction="upload")
    with pytest.raises(TransientStoreError, match="S3 answered BadDigest: The CRC32 you specified") as caught:
        with s3_errors(WHERE):
            s3_client().put_object(**OBJECT, Body=b"other")
    assert isinstance(caught.value.__cause__, ClientError)
    assert is_damaged(caught.value.__cause__)
    assert (count(s3, "PutObject"), caught.value.attempts) == (1, 1)
    assert read() == BODY


@pytest.mark.parametrize("kind", ["truncate", "flip"])
def test_a_body_that_breaks_off_or_is_damaged_on_its_way_down_can_be_read_again(s3, pauses, kind):
    s3.fail("GetObject", kind, times=2)
    with pytest.raises(
        TransientStoreError, match=r"the answer broke off or was damaged on the way: .*; try again later"
    ):
        read()
    # The client does not read again by itself.
    assert count(s3, "GetObject") == 1
    assert with_retries(read, f"reading {WHERE}") == BODY
    assert count(s3, "GetObject") == 3


@pytest.mark.parametrize("kind", ["truncate", "flip"])
def test_a_list_that_breaks_off_or_is_damaged_is_asked_for_again(s3, pauses, kind):
    # Flipped, the byte in the middle is one that no UTF-8 has, so that the list is no XML.
    s3.fail("ListObjectsV2", kind)
    with s3_errors("s3://models"):
        assert s3_client().list_objects_v2(Bucket="models")["KeyCount"] == 1
    assert count(s3, "ListObjectsV2") == 2


def test_an_answer_that_is_no_answer_of_s3_names_the_setting():
    # botocore makes a 500 of most such answers, so the rest is hard to come by.
    error = translate(ResponseParserError("Unable to parse response (syntax error)"), WHERE)
    assert is_transient(error)
    assert str(error) == (
        f"{WHERE}: the answer broke off or was damaged on the way: Unable to parse response (syntax error); try again "
        "later, and see that AWS_ENDPOINT_URL_S3, if it is set, is the URL of a service that speaks S3"
    )


def test_names_that_no_bucket_can_have_are_refused_without_a_request(s3):
    with pytest.raises(StoreError, match=r"^s3://No Bucket: Parameter validation failed: Invalid bucket name"):
        with s3_errors("s3://No Bucket"):
            s3_client().list_objects_v2(Bucket="No Bucket")
    assert s3.requests == []


def test_without_credentials_it_is_said_where_to_put_them(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    expected = f"^{WHERE}: no credentials for S3 could be had .*; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    with pytest.raises(StoreError, match=expected):
        read()


def test_credentials_that_cannot_be_fetched_are_named():
    error = translate(CredentialRetrievalError(provider="sso", error_msg="the session has ended"), WHERE)
    assert type(error) is StoreError
    assert "could be had (Error when retrieving credentials from sso: the session has ended); set" in str(error)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_PROFILE": "night"}, r"The config profile \(night\) could not be found"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "Invalid endpoint: nonsense"),
        ({"AWS_ENDPOINT_URL_S3": "http://me:pass@[bad"}, "S3 cannot be used as it is set up"),
        ({"AWS_DEFAULT_REGION": "not a region"}, "region"),
    ],
)
def test_settings_that_make_no_client_are_named(s3, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = f"^S3 cannot be used as it is set up: .*{said}.*; look at AWS_PROFILE, AWS_ENDPOINT_URL_S3"
    with pytest.raises(StoreError, match=expected if "cannot" not in said else said) as caught:
        s3_client()
    assert "pass" not in str(caught.value)


def test_half_of_a_pair_of_credentials_makes_no_client():
    with pytest.raises(StoreError, match="of the pair of access key id and secret only one is given"):
        s3_client(S3Access(access_key_id="AKIATESTTESTTESTTEST"))


def test_no_secret_is_in_a_message_or_a_traceback(s3):
    said = f"see https://me:pass@cdn/a?X-Amz-Signature=f00ba4 key {s3.access_key_id}, token hf_abcdefgh1234"
    s3.fail("GetObject", "status", status=403, message=said)
    with pytest.raises(StoreError, match=r"see https://cdn/a key AKIA\.\.\., token hf_\.\.\.") as caught:
        read()
    shown = "".join(traceback.format_exception(caught.value))
    secrets = ("f00ba4", "pass@", s3.access_key_id, "abcdefgh1234", s3.secret_access_key)
    # Lines of this file, which a traceback quotes, hold some of them.
    quoted = "".join(line for line in shown.splitlines() if "said" not in line)
    assert [secret for secret in secrets if secret in quoted] == []
