"""Reading the licence from a model's card."""

import pytest

from tasks.licences import read_licence_text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\ntags: [merge]\n---\n# Model\n", "mit"),
        ("---\ntags: [merge]\n---\nlicense: mit\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ("---\n- license\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("# Model\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_only_a_licence_in_the_header_counts(card: str, licence: str | None):
    assert read_licence_text(card) == licence


def test_a_broken_header_is_warned_of_by_its_place(caplog: pytest.LogCaptureFixture):
    assert read_licence_text("---\nlicense: [mit\n---\n", "s3://models/news/README.md") is None
    assert "s3://models/news/README.md: the header is no YAML, so the licence is not known" in caplog.text
