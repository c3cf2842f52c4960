"""Who we are, and that nobody reads it in a message."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from tasks.remote.access import (
    HubAccess,
    S3Access,
    hub_access,
    redact_causes,
    redacted,
    s3_access,
    use_access,
)


def test_the_environment_says_what_boto3_has_no_variable_for(monkeypatch):
    assert s3_access() == S3Access()
    monkeypatch.setenv("COCKTAIL_S3_KMS_KEY_ID", "alias/models")
    monkeypatch.setenv("COCKTAIL_S3_REQUESTER_PAYS", "True")
    assert s3_access() == S3Access(kms_key_id="alias/models", requester_pays=True)


@pytest.mark.parametrize(("value", "pays"), [("1", True), ("yes", True), ("0", False), ("", False), ("no", False)])
def test_requester_pays_is_on_only_when_said(monkeypatch, value, pays):
    monkeypatch.setenv("COCKTAIL_S3_REQUESTER_PAYS", value)
    assert s3_access().requester_pays is pays


def test_the_endpoint_of_the_hub_is_read_when_asked_for(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    assert hub_access() == HubAccess(endpoint="https://hub.example")
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert hub_access() == HubAccess()


def test_what_a_run_was_given_holds_inside_the_block_only(monkeypatch):
    given = S3Access(endpoint_url="https://minio.example:9000")
    token = HubAccess(token="hf_given")
    before = hub_access()
    with use_access(s3=given):
        assert (s3_access(), hub_access()) == (given, before)
        with use_access(hub=token):
            assert (s3_access(), hub_access()) == (given, token)
        assert hub_access() == before
    assert s3_access() == S3Access()


def test_a_thread_that_is_given_the_context_has_the_access():
    given = S3Access(region="eu-central-1")
    with use_access(s3=given), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, s3_access).result() == given
        assert pool.submit(s3_access).result() == S3Access()


def test_secrets_are_not_shown():
    shown = f"{S3Access(secret_access_key='s3cret', session_token='t0ken')} {HubAccess(token='hf_secret')}"
    assert not any(secret in shown for secret in ("s3cret", "t0ken", "hf_secret"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("for url 'https://cdn.example/a?X-Amz-Signature=f00&b=1'.", "for url 'https://cdn.example/a'."),
        ('URL: "https://me:pass@s3.example/b/k"', 'URL: "https://s3.example/b/k"'),
        ("token hf_abcdefgh1234 is expired", "token hf_... is expired"),
        ("Illegal header value b'Bearer opaque-token\\n'", "Illegal header value b'Bearer ...\\n'"),
        ("key AKIAABCDEFGHIJKLMNOP is unknown", "key AKIA... is unknown"),
        ("What now? Ask hf_hub.", "What now? Ask hf_hub."),
        ("s3://bucket/prefix: gone", "s3://bucket/prefix: gone"),
    ],
)
def test_text_of_others_is_shown_without_secrets(text, shown):
    assert redacted(text) == shown


def test_tracebacks_show_no_secret_of_any_cause():
    try:
        try:
            try:
                raise OSError("GET https://cdn.example/a?X-Amz-Signature=f00")
            except OSError:
                raise ValueError("token hf_abcdefgh1234", 401) from None
        except ValueError as error:
            raise RuntimeError("failed") from error
    except RuntimeError as error:
        redact_causes(error)
        shown = "".join(traceback.format_exception(error))
        assert error.__cause__ is not None
        assert error.__cause__.args == ("token hf_...", 401)
        assert "f00" not in str(error.__cause__.__context__)
        # Source lines, which a traceback quotes too, hold the secrets of this test.
        assert "ValueError: ('token hf_...', 401)" in shown
