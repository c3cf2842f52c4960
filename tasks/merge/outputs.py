"""Write the models of a job beside their places, and give them their names at the end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from tasks.checkpoint import other_files
from tasks.merge.job import Job, Part
from tasks.merge.journal import journaled
from tasks.merge.layout import Layout
from tasks.merge.resume import check_room, name_output, open_draft
from tasks.merge.template import copy_other_files
from tasks.merge.weight_files import write_weight_files
from tasks.records import Checkpoint, FileDigest


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """What became of one output."""

    files: dict[str, FileDigest]
    n_reused: int
    """Bytes of weight files that an earlier run had finished."""

    @property
    def n_written(self) -> int:
        """Bytes of all others."""
        return sum(file.size for file in self.files.values()) - self.n_reused


def write_outputs(
    job: Job,
    parts: Sequence[Part],
    layout: Layout,
    template: Checkpoint,
    changed_files: Mapping[str, bytes],
    key: str | None,
    report_progress: Callable[[int, int], None] | None,
) -> tuple[list[WrittenModel], list[Part]]:
    """Write every output of a job, or none; see `merge_checkpoints` for errors.

    Args:
        job: Its outputs are at the places that they will have.
        parts: Of all weight files.
        layout: Of every output.
        template: Where all other files come from.
        changed_files: Path to content of those that are not as in the template.
        key: Of the merge, to go on with what an equal one has left; None to begin anew.
        report_progress: Called with tensor bytes written and tensor bytes in all.

    Returns:
        The outputs, and the parts that had to be merged.
    """
    places = [output.folder for output in job.outputs]
    other_sizes = {path: file.size for path, file in other_files(template).items()}
    other_sizes |= {path: len(content) for path, content in changed_files.items()}
    size = layout.n_bytes + sum(other_sizes.values())
    with ExitStack() as open_drafts:
        drafts = [open_drafts.enter_context(open_draft(place, key)) for place in places]
        journals = [open_drafts.enter_context(journaled(draft, key or "", layout.files)) for draft in drafts]
        finished = [dict(journal.finished) for journal in journals]
        parts = [part for part in parts if any(part.tensor.file.as_posix() not in each for each in finished)]
        reused = [sum(file.size for file in each.values()) for each in finished]
        check_room(places, [size - n_bytes for n_bytes in reused])
        in_draft = [replace(each, folder=own.folder) for each, own in zip(job.outputs, journals, strict=True)]
        dtypes = layout.float_dtypes()
        copied = [copy_other_files(template, dtypes, journal.folder, changed_files) for journal in journals]
        # Before anything is merged: they may have waited long for a device.
        job.check_inputs()
        merged = write_weight_files(replace(job, outputs=in_draft), parts, layout, report_progress, journals)
        files = [others | weights for others, weights in zip(copied, merged, strict=True)]
        for journal, place, each in zip(journals, places, files, strict=True):
            name_output(journal.folder, place, each)
    return [WrittenModel(*each) for each in zip(files, reused, strict=True)], parts
