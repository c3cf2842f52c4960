"""Drafts: those of the dead are swept up, those of the living are not."""

import subprocess
import sys
from pathlib import Path

from tasks.stores.staging import staged, sweep

WRITER = """
import sys, time
from pathlib import Path
from tasks.stores.staging import staged
with staged(Path(sys.argv[1])) as draft:
    draft.mkdir()
    (draft / "half").write_bytes(b"0" * 1000)
    print("writing", flush=True)
    time.sleep(60)
"""


def test_the_draft_of_a_killed_writer_goes_and_that_of_a_living_one_stays(tmp_path: Path):
    def start_writer() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start_writer() as doomed:
        assert doomed.stdout.readline() == "writing\n"
        doomed.kill()
    with staged(tmp_path) as living:
        living.write_bytes(b"mine")
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == [living, living.with_name(living.name + ".lock")]
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_was_named_stays_and_one_that_was_not_goes(tmp_path: Path):
    with staged(tmp_path) as draft:
        draft.write_bytes(b"kept")
        draft.rename(tmp_path / "goal")
    with staged(tmp_path) as draft:
        draft.mkdir()
        (draft / "part").write_bytes(b"dropped")
    assert [path.name for path in tmp_path.iterdir()] == ["goal"]
