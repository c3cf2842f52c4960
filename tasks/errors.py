"""Every error a user or a machine can cause, by who can do something about it.

CocktailError                     catch this to catch them all
├── RecipeError                   the recipe is wrong: mend the file (exit code 2)
├── InputError                    something the recipe names is wrong
│   ├── ExampleDataError          a line of example or evaluation data, named by number
│   ├── CheckpointError           a folder is no readable checkpoint: missing, damaged, unsupported
│   ├── CheckpointMismatchError   two checkpoints cannot be merged with each other
│   ├── ModelChangedError         a model was written over while it was merged
│   ├── NonFiniteError            NaN or infinity in a tensor or a loss
│   └── PreflightError            everything `cocktail plan` found, in one list
├── StoreError                    a place cannot be read or written
│   ├── NotFoundError             the reference, version or alias does not exist
│   ├── AliasConflictError        another run moved the alias first
│   └── TransientStoreError       a network or server fault; trying again may help
├── ReleaseError                  a release is damaged, blocked or incomplete
└── DeviceError                   the device or its worker process failed
    ├── WorkerDiedError           the process is gone (killed, out of memory, CUDA error); trying again may help
    └── WorkerTimeoutError        the call ran longer than its limit and was killed; trying again may help

"The gate says no" is a result (`GateDecision`), never an exception.
"""

from collections.abc import Sequence


class CocktailError(Exception):
    """Base of all errors with a message meant for the user: what, where, expected, found, what to do."""


class RecipeError(CocktailError):
    """The recipe cannot be used as it is written."""


class InputError(CocktailError):
    """Something that the recipe names cannot be used."""


class ExampleDataError(InputError):
    """A row of example or evaluation data is wrong; the message names the file and the line."""


class CheckpointError(InputError):
    """A folder does not hold a checkpoint that can be read."""


class CheckpointMismatchError(InputError):
    """Checkpoints differ where they must agree to be merged."""


class ModelChangedError(InputError):
    """Files of a model changed while it was merged; what was finished before is right, and kept."""


class NonFiniteError(InputError):
    """A tensor or a loss holds NaN or infinity; nothing may be computed from it."""


class PreflightError(InputError):
    """All offenders found before any heavy work, listed at once."""

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        # One argument, so that the error survives pickling between processes.
        super().__init__(self.problems)

    def __str__(self) -> str:
        # A problem of several lines, such as bad rows, keeps them under its own dash.
        lines = "\n".join("  - " + problem.replace("\n", "\n  ") for problem in self.problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        return f"{len(self.problems)} {noun} found before any work started:\n{lines}"


class StoreError(CocktailError):
    """A place where models are read or released cannot be used."""


class NotFoundError(StoreError):
    """A reference, version or alias that does not exist."""


class AliasConflictError(StoreError):
    """The alias changed between reading and moving it: another run won."""


class TransientStoreError(StoreError):
    """A fault of the network or the server that may pass."""

    def __init__(self, message: str, retry_after: float | None = None, attempts: int = 1):
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to be left alone; None if it did not."""
        self.attempts = attempts
        """How often it was tried before this was raised; more than 1 where a client tries again by itself."""


class ReleaseError(CocktailError):
    """A release is damaged, blocked or incomplete."""


class DeviceError(CocktailError):
    """A device, or the worker process that holds it, failed."""


class WorkerDiedError(DeviceError):
    """The worker process ended before it answered."""


class WorkerTimeoutError(DeviceError):
    """The call ran longer than its time limit; its worker was killed."""


_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says where it has no class of its own for it: on the CPU, of CUDA itself, and of a library of CUDA."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch's error of a GPU, Python's own, or one of those that are told by their words."""
    # By name, because this module must not import torch.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or any(words in str(error) for words in _OUT_OF_MEMORY)


def is_transient(error: BaseException) -> bool:
    """Whether doing the same again may succeed; decides the retries of every task.

    A worker that died and a fault of the network may pass; anything a user must mend never does.
    """
    return isinstance(error, WorkerDiedError | WorkerTimeoutError | TransientStoreError | ConnectionError)
