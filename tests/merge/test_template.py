import json
from pathlib import Path

import pytest
import torch

from tasks.digests import hash_file
from tasks.errors import CheckpointError
from tasks.merge.template import copy_other_files


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def test_all_files_but_tensors_are_copied_byte_for_byte(make_checkpoint, output: Path):
    template = make_checkpoint("base", {"w": torch.ones(1)}, n_shards=2)
    written = copy_other_files(template, {"F32"}, output)
    assert sorted(written) == ["config.json", "tokenizer.json"] == sorted(path.name for path in output.iterdir())
    assert {path: template.files[path] for path in written} == written
    assert (output / "config.json").read_bytes() == (template.folder / "config.json").read_bytes()


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_config_follows_the_dtype_of_the_output(make_checkpoint, output: Path, key: str):
    template = make_checkpoint("base", {"w": torch.ones(1)})
    config = template.folder / "config.json"
    config.write_text(json.dumps({key: "float32", "architectures": ["X"]}))
    template.files["config.json"] = hash_file(config)
    written = copy_other_files(template, {"BF16"}, output)
    assert json.loads((output / "config.json").read_text()) == {key: "bfloat16", "architectures": ["X"]}
    assert written["config.json"] == hash_file(output / "config.json")


@pytest.mark.parametrize("dtypes", [{"F32", "BF16"}, set[str]()])
def test_the_config_stays_where_the_output_has_no_single_dtype(make_checkpoint, output: Path, dtypes: set[str]):
    template = make_checkpoint("base", {"w": torch.ones(1)}, dtype="float16")
    assert copy_other_files(template, dtypes, output)["config.json"] == template.files["config.json"]


def test_a_file_that_changed_since_it_was_described_is_refused(make_checkpoint, output: Path):
    template = make_checkpoint("base", {"w": torch.ones(1)})
    (template.folder / "tokenizer.json").write_text("other")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the file changed since base was read"):
        copy_other_files(template, {"F32"}, output)


def test_changed_files_take_the_place_of_the_templates(make_checkpoint, output: Path):
    template = make_checkpoint("base", {"w": torch.ones(1)})
    changed = {"config.json": b'{"dtype": "float32", "vocab_size": 9}', "added_tokens.json": b"{}"}
    written = copy_other_files(template, {"BF16"}, output, changed)
    assert json.loads((output / "config.json").read_text()) == {"dtype": "bfloat16", "vocab_size": 9}
    assert (output / "added_tokens.json").read_bytes() == b"{}"
    assert written == {
        path: hash_file(output / path) for path in ("added_tokens.json", "config.json", "tokenizer.json")
    }
