import math
from dataclasses import dataclass
from pathlib import Path

from tasks.records import Checkpoint, FileDigest, from_json, to_json


@dataclass(frozen=True, slots=True)
class Measured:
    values: tuple[float, ...]
    folder: Path | None
    files: dict[str, FileDigest]


def test_a_record_comes_back_from_json_as_it_was():
    checkpoint = Checkpoint("a", "org/a", "main", "/models/a", {"x": FileDigest("0" * 64, 3)})
    assert from_json(Checkpoint, to_json(checkpoint)) == checkpoint
    measured = Measured((1.5, -0.0), Path("/models"), checkpoint.files)
    found = to_json(measured)
    assert found == {"values": [1.5, -0.0], "folder": "/models", "files": {"x": {"sha256": "0" * 64, "size": 3}}}
    assert from_json(Measured, found) == measured


def test_what_is_not_finite_stays_a_number_for_the_writer_to_refuse():
    found = to_json(Measured((math.nan, math.inf), None, {}))["values"]
    assert math.isnan(found[0]) and found[1] == math.inf
