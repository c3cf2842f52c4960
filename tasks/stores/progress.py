"""A line in the log now and then while much is sent, so that nobody takes a long upload for one that hangs."""

import logging
import threading
import time

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0


class UploadProgress:
    """Counts bytes from several threads."""

    def __init__(self, where: str, total: int):
        """`where` is shown; `total` is what there is to send, in bytes."""
        self._where, self._total = where, total
        self._done = 0
        self._lock = threading.Lock()
        self._shown = time.monotonic()

    def add(self, n_bytes: int) -> None:
        """Note that bytes have arrived, or were found to be there."""
        with self._lock:
            self._done += n_bytes
            now = time.monotonic()
            if now - self._shown < INTERVAL_SECONDS:
                return
            self._shown = now
            percent = 100 * self._done / self._total if self._total else 100
        logger.info("upload to %s: %.0f %% of %.1f MB", self._where, percent, self._total / 1e6)
