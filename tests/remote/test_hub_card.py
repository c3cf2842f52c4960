"""The Hub stand-in's check of model cards."""

import pytest
from hub_card import validate_card
from huggingface_hub import HfApi

CARD = "---\nlicense: mit\nbase_model: [org/base]\nbase_model_relation: merge\ntags: [merge]\n---\n# Model\n"


def test_a_card_is_checked_before_it_is_uploaded(hub):
    hub.create_repo("org/new")
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    card = CARD.replace("license: mit", "license: beer").encode()
    with pytest.raises(ValueError, match="\"license\" 'beer' must be one of"):
        api.upload_file(repo_id="org/new", path_or_fileobj=card, path_in_repo="README.md")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        api.upload_file(repo_id="org/new", path_or_fileobj=b"# Model", path_in_repo="README.md")
    api.upload_file(repo_id="org/new", path_or_fileobj=CARD.encode(), path_in_repo="README.md")
    assert hub.files("org/new")["README.md"].decode() == CARD


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ("license: [mit, beer]", "\"license\" 'beer' must be one of"),
        ("base_model: [org/base, /tmp/model]", "\"base_model\" with value '/tmp/model' is not valid"),
        ("base_model: {a: b}", '"base_model" must be a string or an array of strings'),
        ("base_model_relation: mixed", "\"base_model_relation\" 'mixed' must be one of"),
        ("library_name: [a]", '"library_name" must be a string'),
        ("tags: merge", '"tags" must be an array of strings'),
        ("datasets: [1]", '"datasets" must be an array of strings'),
        ("a: [", "invalid YAML"),
        ("- a", "metadata must be a mapping"),
        ("model-index: {}", '"model-index" must be an array'),
        ("model-index: [{}]", '"model-index[0].name" is required'),
        ("model-index: [{name: m}]", '"model-index[0].results" must be an array'),
        ("model-index: [{name: m, results: [1]}]", '"model-index[0].results[0]" must be an object'),
        ("model-index: [{name: m, results: [{}]}]", '"model-index[0].results[0].task.type" is required'),
        (
            "model-index: [{name: m, results: [{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: a}]}]}]",
            '"model-index[0].results[0].metrics[0]" needs "type" and "value"',
        ),
    ],
)
def test_metadata_that_the_hub_refuses_is_an_error(metadata, error):
    errors, warnings = validate_card(f"---\n{metadata}\n---\ntext")
    assert errors[0].startswith(error) and warnings == []
