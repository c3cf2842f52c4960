"""Equal content, equal digest; expected values are test vectors or made by sha256sum."""

import json
from pathlib import Path

import pytest

from tasks.digests import canonical_json, hash_bytes, hash_file, hash_json
from tasks.records import FileDigest

# The test vector of FIPS 180-2, appendix B.1.
ABC = FileDigest("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)


def test_a_file_and_its_bytes_have_one_digest(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == hash_bytes(b"abc") == ABC


def test_canonical_json_is_equal_for_equal_values():
    assert canonical_json({"b": 1, "a": (2, 3)}) == canonical_json({"a": [2, 3], "b": 1}) == '{"a":[2,3],"b":1}'
    assert json.loads(canonical_json({"ä": 0.1})) == {"ä": 0.1}


def test_json_is_hashed_in_its_canonical_form():
    # printf '{"10":"a","2":"b"}' | sha256sum: keys are sorted as text, whatever they were before.
    expected = "a76f9931f09e47db676e50eebb06409ca3288449353bcd0eed02e168f7c6caf2"
    assert hash_json({2: "b", 10: "a"}) == hash_json({"10": "a", "2": "b"}) == expected


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        hash_json([number])
