"""One merge that several processes share: each writes some of the output's files, from ranges of the inputs.

    request = MergeRequest(...)
    sizes = outline(request, cache)                                       # path of every weight file to its bytes
    digests = {path: merge_shard(request, path, place, cache) for path in sizes}   # anywhere, in any order
    merged = finish_merge(request, digests, place, cache)                 # all other files, and the record

The bytes are those of `tasks.merge.merge`: the same layout, the same formulas. Whoever dies has to do its own file
again and nothing else; a file that stands is found by what an equal merge noted about it.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.cache import ResultCache
from tasks.layered import Setting
from tasks.merge.by_range import WINDOW_ELEMENTS, locate, ranges_by_folder
from tasks.merge.health import HealthMode, measure_health
from tasks.merge.inputs import Choice, choose
from tasks.merge.job import Job, count_bytes_read, plan_parts
from tasks.merge.layout import Layout, OutputFile, plan_layout
from tasks.merge.merge import Report
from tasks.merge.opening import OpenModels, make_job, open_models
from tasks.merge.resume import merge_key
from tasks.merge.template import copy_other_files
from tasks.merge.weight_files import write_weight_files
from tasks.merge_records import MergedModel
from tasks.parallel import map_requests
from tasks.records import Checkpoint, FileDigest
from tasks.staging import write_file
from tasks.stores.shards import ShardPlace
from tasks.tokens.rows import EmbeddingsRule
from tasks.unchanged import check_models_unchanged

logger = logging.getLogger(__name__)

N_READERS = 8
"""Threads that merge where inputs come over a network: each waits for its own requests most of the time."""


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What is merged; see `tasks.merge.merge.merge_checkpoints` for each."""

    base: Checkpoint
    """As planned: it need not be on this machine. It is the template, too."""
    candidates: tuple[Checkpoint, ...]
    weights: Mapping[str, Setting]
    method: str
    parameters: Mapping[str, Setting]
    candidate_parameters: Mapping[str, Mapping[str, Setting]]
    general: str | None
    seed: int
    dtype: str
    max_shard_bytes: int
    embeddings: EmbeddingsRule | None
    has_base: bool
    health: HealthMode = "sample"

    def choice(self) -> Choice:
        """The method, and all that was chosen for it; ValueError if that makes no sense."""
        names = [candidate.name for candidate in self.candidates]
        return choose(
            self.method, names, self.weights, self.parameters, self.candidate_parameters, self.general, self.seed,
            self.has_base,
        )  # fmt: skip

    @property
    def models(self) -> tuple[Checkpoint, ...]:
        """All that is read."""
        return (self.base, *self.candidates)

    def key(self) -> str:
        """64 hex digits over all that decides the bytes; ValueError if the content of an input is not known."""
        key = merge_key(
            self.base, self.candidates, self.choice(), self.dtype, self.max_shard_bytes, self.base, self.embeddings
        )
        if key is None:
            raise ValueError("the content of an input is not known; a merge is shared of models as they were planned")
        return key


@dataclass(frozen=True, slots=True)
class _Opened:
    """The inputs, readable from this machine, and the layout of the output."""

    base: Checkpoint
    models: OpenModels
    layout: Layout
    is_elsewhere: bool
    """Whether any weights are read over a network."""

    def job(self, choice: Choice, folder: Path) -> Job:
        """What writes into a folder."""
        return replace(make_job(self.models, [choice], [folder]), n_threads=self.n_threads)

    @property
    def n_threads(self) -> int | None:
        """Threads that read; None for as many as help with files of this machine."""
        return N_READERS if self.is_elsewhere else None


def outline(request: MergeRequest, cache: ResultCache) -> dict[str, int]:
    """Path of every weight file of the output to its bytes, large ones first; checks that the inputs can be merged.

    Raises:
        CheckpointError, CheckpointMismatchError, StoreError, ValueError: as `merge_checkpoints`.
    """
    request.choice()
    files = _open(request, cache).layout.files
    return {file.path: file.size for file in sorted(files, key=lambda file: -file.size)}


def merge_shard(
    request: MergeRequest, path: str, place: ShardPlace, cache: ResultCache, report_progress: Report | None = None
) -> FileDigest:
    """Merge one weight file and store it, unless an equal merge has left it there.

    Args:
        request: What is merged.
        path: Of the file, one of `outline`.
        place: Where it is stored.
        cache: Has, or is told, what the file's content is.
        report_progress: Called with tensor bytes written and tensor bytes in all.

    Raises:
        NonFiniteError: an input holds NaN or infinity, or the result overflows its dtype.
        InputError: a model in a folder is not what was planned.
        StoreError: an input cannot be read, or the file cannot be stored.
    """
    started = time.perf_counter()
    choice, key = request.choice(), {"merge": request.key(), "path": path}
    if (noted := cache.get("merged-shard", key)) is not None:
        digest = FileDigest(noted["sha256"], noted["size"])
        if place.holds(path, digest):
            logger.info("%s: merged by an earlier run, %.1f MB", path, digest.size / 1e6)
            return digest
    opened = _open(request, cache)
    file = _find(opened.layout, path)
    with place.draft(path) as folder:
        job = opened.job(choice, folder)
        parts = plan_parts(job, file.tensors)
        (written,) = write_weight_files(job, parts, Layout((file,), {}), report_progress)
        # Of a model that was written to meanwhile, one half may have been read before and one after.
        check_models_unchanged(cache, *request.models)
        merged_in = time.perf_counter() - started
        place.put(path, folder / path, written[path])
    cache.put("merged-shard", key, {"sha256": written[path].sha256, "size": written[path].size})
    logger.info(
        "%s: read %.1f MB, wrote %.1f MB in %.2f s, stored it in %.2f s", path, count_bytes_read(job, parts) / 1e6,
        file.size / 1e6, merged_in, time.perf_counter() - started - merged_in,
    )  # fmt: skip
    return written[path]


def finish_merge(
    request: MergeRequest, shards: Mapping[str, FileDigest], place: ShardPlace, cache: ResultCache
) -> MergedModel:
    """Store all files but weights beside the weight files, which stand there, and compare the inputs.

    Args:
        request: What was merged.
        shards: Every weight file of `outline` to its content, as `merge_shard` gave it.
        place: Where they stand.
        cache: Where inputs are looked up.

    Returns:
        The merged checkpoint, named `merged`, at the place's URI. Bytes are those of all files, also of those that an
        earlier run has left; seconds are of this step alone.

    Raises:
        StoreError: an input cannot be read, or a file not be stored.
    """
    started = time.perf_counter()
    # Samples are far apart: around each of them nothing more is read.
    opened = _open(request, cache, window_elements=0)
    layout = opened.layout
    with place.draft("config.json") as folder:
        others = copy_other_files(opened.base, layout.float_dtypes(), folder, opened.models.changed_files)
        others |= {path: write_file(folder / path, content) for path, content in layout.indexes.items()}
        map_requests(lambda path: place.put(path, folder / path, others[path]), list(others))
    files = {**others, **shards}
    job = opened.job(request.choice(), cache.folder)
    tensors = [tensor for file in layout.files for tensor in file.tensors]
    health = measure_health(job, tensors, request.health, opened.n_threads)
    named = Checkpoint("merged", place.uri, "", place.uri, {path: files[path] for path in sorted(files)})
    return MergedModel(
        checkpoint=replace(named, revision=f"sha256:{named.digest}"),
        bytes_read=count_bytes_read(job, plan_parts(job, tensors)),
        bytes_written=sum(file.size for file in files.values()),
        seconds=time.perf_counter() - started,
        health=health,
        vocabulary=request.embeddings,
        added_tokens=opened.models.n_added_tokens,
    )


def _open(request: MergeRequest, cache: ResultCache, window_elements: int = WINDOW_ELEMENTS) -> _Opened:
    located = map_requests(lambda model: locate(model, cache), request.models)
    base, *candidates = (each.checkpoint for each in located)
    models = open_models(base, candidates, base, request.embeddings, ranges_by_folder(located, window_elements))
    layout = plan_layout(models.views, request.dtype, request.max_shard_bytes)
    return _Opened(base, models, layout, any(each.read_range is not None for each in located))


def _find(layout: Layout, path: str) -> OutputFile:
    for file in layout.files:
        if file.path == path:
            return file
    raise ValueError(f"{path} is none of the merge's files: {', '.join(file.path for file in layout.files)}")
