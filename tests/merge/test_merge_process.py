"""What shows only in a process of its own: imports, memory, and death in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint

_MERGE = """
import json, sys, time
from pathlib import Path
import torch

def peak_mb():
    # Not ru_maxrss: that one inherits the peak of the process that started us.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

before = peak_mb()
from tasks.merge.merge import merge_checkpoints
from tasks.records import Checkpoint

def wait(done, total):
    if sys.argv[3] == "stop":
        print("working", flush=True)
        time.sleep(60)

folder = Path(sys.argv[1]).absolute()
candidates = [Checkpoint(name, name, "", folder.as_uri(), {}) for name in ("a", "b")]
merge_checkpoints(
    candidates[0], candidates, {"a": 0.5, "b": 0.5}, method="linear", dtype="base", max_shard_bytes=10**9,
    template=candidates[0], output=Path(sys.argv[2]), report_progress=wait,
)
heavy = [name for name in ("transformers", "prefect", "sentence_transformers", "sklearn") if name in sys.modules]
print(json.dumps({"megabytes": peak_mb() - before, "heavy": heavy}))
"""


def write_sparse_checkpoint(folder: Path, n_bytes: int) -> None:
    """A checkpoint of one bfloat16 tensor of zeros that takes no space on the disk."""
    folder.mkdir()
    entry = {"dtype": "BF16", "shape": [n_bytes // 2], "data_offsets": [0, n_bytes]}
    header = json.dumps({"w": entry}).encode()
    file = folder / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + n_bytes)
    (folder / "config.json").write_text("{}")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _MERGE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_a_merge_holds_no_tensor_and_imports_no_library_of_models(tmp_path: Path):
    write_sparse_checkpoint(tmp_path / "model", 120_000_000)
    with start(tmp_path / "model", tmp_path / "out", "go") as process:
        output, _ = process.communicate(timeout=120)
    result = json.loads(output)
    assert result["megabytes"] < 60
    assert result["heavy"] == []
    assert (tmp_path / "out/model.safetensors").stat().st_size > 120_000_000


def test_a_merge_that_was_killed_leaves_no_output_and_can_be_done_again(make_checkpoint, load_all, tmp_path: Path):
    model = make_checkpoint("model", {"w": torch.ones(1000), "v": torch.ones(10)})
    output = tmp_path / "out"
    with start(model.folder, output, "stop") as process:
        assert process.stdout and process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert len(list(tmp_path.glob(".staging-*.lock"))) == 1
    candidate = Checkpoint("a", "a", "", model.uri, model.files)
    merge_checkpoints(
        candidate, [candidate], {"a": 1.0}, method="linear", dtype="base", max_shard_bytes=10**9,
        template=candidate, output=output,
    )  # fmt: skip
    assert load_all(output)["w"].tolist() == [1.0] * 1000
    assert list(tmp_path.glob(".staging-*")) == []
