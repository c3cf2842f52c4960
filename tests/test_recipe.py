"""Which parts of a recipe go with which type of model."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.recipe import Recipe

MODEL_TYPES = ("decoder", "encoder", "reranker", "encoder-decoder")


def make(model_type: str, **sections: Any) -> Recipe:
    content = {"name": "x", "model_type": model_type, "candidates": [{"name": "a", "model": "/a"}], "examples": [{}]}
    return Recipe.model_validate({**content, **sections})


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_type_of_model_can_be_weighed_by_losses(model_type: str):
    assert make(model_type, weigh={"strategy": "loss"}).needs_examples


@pytest.mark.parametrize("model_type", ["reranker", "encoder-decoder"])
def test_types_without_an_evaluation_say_so(model_type: str):
    with pytest.raises(
        ValidationError, match=f"task 'x' is of kind retrieval; a model of type {model_type} has no kind"
    ):
        make(model_type, evaluate=[{"name": "x", "kind": "retrieval", "data": "/x"}])


def test_lm_cocktail_has_no_loss_for_rerankers():
    with pytest.raises(ValidationError, match=r"score\.loss lm_cocktail: LM_Cocktail measures no rerankers"):
        make("reranker", score={"loss": "lm_cocktail"})
    for model_type in ("decoder", "encoder", "encoder-decoder"):
        assert make(model_type, score={"loss": "lm_cocktail"}).score.batch_size == 2
    # Nothing is scored, so it does not matter.
    assert make("reranker", score={"loss": "lm_cocktail"}, weigh={"strategy": "uniform"})


def test_the_candidate_named_base_has_no_adapter():
    candidates = [{"name": "base", "model": "/base", "adapter": "/lora"}]
    with pytest.raises(ValidationError, match="the one named 'base' has the adapter /lora, so it is not the base"):
        make("decoder", base="/base", candidates=candidates)


def test_content_of_an_adapter_is_pinned_only_where_there_is_one():
    candidates = [{"name": "a", "model": "/a", "adapter_digest": "sha256:0"}]
    with pytest.raises(ValidationError, match="'a' has an adapter_digest and no adapter"):
        make("decoder", candidates=candidates)
