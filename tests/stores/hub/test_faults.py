"""Faults that only the client of Xet raises, for which there is no server to ask."""

import json

import pytest

from tasks.errors import StoreError, TransientStoreError
from tasks.stores.hub.faults import repo_errors


def test_what_xet_says_in_words_only_may_pass_and_was_tried_by_it_before():
    with pytest.raises(TransientStoreError, match=r"hub/demo: the upload failed: data processing error") as caught:
        with repo_errors("hub/demo", attempts=6):
            raise RuntimeError("data processing error")
    assert caught.value.attempts == 6


def test_a_token_that_xet_refuses_is_to_be_mended_but_a_local_file_is_no_matter_of_tokens():
    with pytest.raises(StoreError, match=r"hub/demo: the Hub's storage refused the token \(expired\); set HF_TOKEN"):
        with repo_errors("hub/demo"):
            raise PermissionError("expired")
    with pytest.raises(PermissionError, match=r"model\.safetensors"):
        with repo_errors("hub/demo"):
            raise PermissionError(13, "Permission denied", "model.safetensors")


def test_an_answer_that_is_no_json_may_pass():
    with pytest.raises(TransientStoreError, match=r"hub/demo: the Hub's answer is no JSON: Expecting value"):
        with repo_errors("hub/demo"):
            json.loads("<html>")
