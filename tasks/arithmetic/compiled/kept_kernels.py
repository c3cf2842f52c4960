# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# numba has no types.
"""Where compiled kernels are kept between processes.

numba's own way keeps an index and numbered files per kernel. Two processes that compile one kernel at the same time for
different dtypes can both take a number, and the index then gives the code for one dtype as that for the other; so can a
process that reads the index just before the file that it names is replaced. Nights, workers and tests start together,
so here each dtype has a file of its own, which is replaced whole and says what it is for.
"""

import hashlib
import pickle
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile


class KeptKernels(FunctionCache):
    """What numba asks for a kernel's code before it compiles, and gives it to afterwards; of one kernel.

    Raises:
        RuntimeError: There is no folder that files could be kept in.
    """

    def __init__(self, kernel: Any):
        super().__init__(kernel)
        self._cache_file = _FilePerSignature(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )


class _FilePerSignature(IndexDataCacheFile):
    """Keeps under the hash of a key what belongs to the key; a key is a signature, a processor and the bytecode."""

    def save(self, key: Any, data: Any) -> None:
        self._save_data(self._name_of(key), (self._purpose(key), data))

    def load(self, key: Any) -> Any:
        """None where nothing is kept, or what is kept cannot be read or is for something else: numba then compiles."""
        try:
            purpose, data = self._load_data(self._name_of(key))
        except (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, pickle.UnpicklingError):
            return None
        return data if purpose == self._purpose(key) else None

    def _purpose(self, key: Any) -> Any:
        return self._version, self._source_stamp, key

    def _name_of(self, key: Any) -> str:
        return self._data_name_pattern.format(number=int(hashlib.sha256(repr(key).encode()).hexdigest()[:12], 16))
