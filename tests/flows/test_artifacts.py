"""What is shown of a night must not decide how it ends."""

from pathlib import Path

import pytest

from flows.artifacts import show_card
from tasks.merge.task import merge
from tasks.recipe import Recipe
from tasks.records import Release


def test_a_card_that_cannot_be_read_is_logged_and_the_release_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recipe = Recipe.model_validate({
        "name": "assistant", "model_type": "decoder", "candidates": [{"name": "base", "model": "org/base"}],
        "weigh": {"strategy": "uniform"}, "publish": {"to": [str(tmp_path)]},
    })  # fmt: skip
    show_card(recipe, Release("20261120-0123456789ab", 1, (), "0" * 64, promoted=True))
    assert "the card of 20261120-0123456789ab is not shown: " in caplog.text


def test_a_merge_whose_worker_died_is_tried_again_since_it_goes_on_where_it_was():
    assert merge.retries == 2
