"""Reading the licence from a model's card."""

from pathlib import Path

import pytest

from tasks.publish.licence import read_licence
from tasks.records import Checkpoint


def licence_of(folder: Path) -> str | None:
    return read_licence(Checkpoint("news", str(folder), "", folder.as_uri(), {}))


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
def test_only_a_licence_in_the_header_counts(tmp_path: Path, card: str, licence: str | None):
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


def test_a_broken_header_is_warned_of(tmp_path: Path, caplog):
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert licence_of(tmp_path) is None
    assert "the header is no YAML" in caplog.text


def test_a_model_without_a_readable_card_or_elsewhere_has_no_known_licence(tmp_path: Path):
    assert licence_of(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert licence_of(tmp_path) is None
    assert read_licence(Checkpoint("news", "s3://models/news", "", "s3://models/news", {})) is None
