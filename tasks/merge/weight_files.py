"""Write the weight files of a layout: made with their full size, filled in any order, hashed on the way."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tasks.merge.job import Job, Part
from tasks.merge.journal import Journal
from tasks.merge.layout import Layout, OutputFile
from tasks.merge.ranges import OrderedHash, open_descriptor, preallocate, write_range
from tasks.merge.seen import blaming_changes
from tasks.merge.stream import stream_tensors
from tasks.records import FileDigest
from tasks.staging import write_file


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """A weight file on its way."""

    journal: Journal
    file: OutputFile
    hash: OrderedHash
    check_inputs: Callable[[], None]

    def finish(self) -> None:
        """Bring it to disk and note it, if what it was made of has not changed; all of that has been read."""
        self.check_inputs()
        self.journal.add(self.file.path, self.hash.digest())


def write_weight_files(
    job: Job,
    parts: Sequence[Part],
    layout: Layout,
    report_progress: Callable[[int, int], None] | None,
    journals: Sequence[Journal] = (),
) -> list[dict[str, FileDigest]]:
    """Write all safetensors files and indexes of the layout into every output's folder, and bring them to disk.

    Args:
        job: What is merged into which folders.
        parts: Of all files that are not finished yet.
        layout: What is written.
        report_progress: Called with tensor bytes written and tensor bytes in all; finished files count.
        journals: One per output, of the same folder; files that it calls finished stand there already. Without
            journals nothing is noted.

    Returns:
        What is there now, by path inside the checkpoint; one mapping per output.

    Raises:
        NonFiniteError, CheckpointError: see `stream_tensors`.
        InputError: from the job's `check_inputs`; a file that it was raised for is not noted.
    """
    journals = journals or [Journal(output.folder) for output in job.outputs]
    files = {
        journal.folder / file.path: _begin_file(journal, file, job.check_inputs)
        for journal in journals
        for file in layout.files
        if file.path not in journal.finished
    }
    report_progress = _counting_finished(layout, journals, report_progress)
    finishing: list[Future[None]] = []
    # One thread brings files to disk and notes them, while the others go on merging.
    with ThreadPoolExecutor(1, thread_name_prefix="journal") as finisher:

        def on_written(path: Path, start: int, stop: int) -> None:
            if files[path].hash.add(start, stop) == files[path].file.size:
                _raise_failed([each for each in finishing if each.done()])
                finishing.append(finisher.submit(files[path].finish))

        for path, each in files.items():
            on_written(path, 0, len(each.file.header))
        with blaming_changes(job.check_inputs):
            stream_tensors(job, parts, on_written, report_progress)
    _raise_failed(finishing)
    return [
        {file.path: journal.finished[file.path] for file in layout.files}
        | {path: write_file(journal.folder / path, content) for path, content in layout.indexes.items()}
        for journal in journals
    ]


def _begin_file(journal: Journal, file: OutputFile, check_inputs: Callable[[], None]) -> _OpenFile:
    path = journal.folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    preallocate(path, file.size)
    with open_descriptor(path, os.O_WRONLY) as descriptor:
        write_range(descriptor, 0, memoryview(file.header))
    return _OpenFile(journal, file, OrderedHash(path), check_inputs)


def _raise_failed(finishing: Sequence[Future[None]]) -> None:
    """Raise the error of the first file that could not be brought to disk."""
    for each in finishing:
        each.result()


def _counting_finished(
    layout: Layout, journals: Sequence[Journal], report_progress: Callable[[int, int], None] | None
) -> Callable[[int, int], None] | None:
    """`report_progress` for figures of the files that are still to be written; those that stand there are added."""
    if report_progress is None:
        return None
    n_bytes = {file.path: sum(tensor.n_bytes for tensor in file.tensors) for file in layout.files}
    total = len(journals) * sum(n_bytes.values())
    before = sum(n_bytes[path] for journal in journals for path in journal.finished)
    if before:
        report_progress(before, total)
    return lambda done, _: report_progress(before + done, total)
