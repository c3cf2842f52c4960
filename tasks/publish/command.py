"""The team's own program that is told of a promotion: to restart a server, to write to a channel.

It is told after the alias has moved and before the decision is written down, so a night that is killed between the two
tells it again when it is run again: at least once per promotion. What it does cannot take a release back. Moves by
hand (`cocktail promote`, `cocktail rollback`) know no recipe, and so no program; the next night tells of them.
"""

import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

logger = logging.getLogger(__name__)

# Credentials of S3, the Hub and Prefect are no business of a program that only needs to know of a release.
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")
_PREFIX = "COCKTAIL_"
_SHOWN_LINES = 20
_SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Promotion:
    """What the program is told, as variables: COCKTAIL_NAME and so on."""

    name: str
    """Of the model."""
    version: str
    alias: str
    uri: str
    """Of the version's folder in the first destination."""
    manifest_sha256: str


def run_command(command: Sequence[str], timeout_seconds: float, promotion: Promotion) -> bool:
    """Run the program to its end; no shell. A failure is a warning in the log, with the last lines of its output.

    Args:
        command: Program and arguments.
        timeout_seconds: Then it is killed, with everything that it has started and that is still in its process group.
        promotion: What it is told.

    Returns:
        Whether it ended with exit code 0.
    """
    with tempfile.TemporaryFile() as output:
        try:
            problem = _run(command, timeout_seconds, promotion, output)
        except OSError as error:
            problem = f"could not be started: {error}"
        lines = "".join(f"\n    {line}" for line in _last_lines(output))
    if problem is None:
        logger.info("on_promote: %s was told of %s%s", command[0], promotion.version, lines)
        return True
    logger.warning(
        "on_promote: %s %s; %s stands and %s points at it all the same; tell by hand what should have been told%s",
        command[0], problem, promotion.version, promotion.alias, lines,
    )  # fmt: skip
    return False


def _run(command: Sequence[str], timeout_seconds: float, promotion: Promotion, output: IO[bytes]) -> str | None:
    """What went wrong; None if nothing did.

    The output goes to a file, not a pipe: a program that leaves a child behind would keep a pipe open for ever.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_environment(promotion),
        start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return f"was killed after {timeout_seconds:g} s, the limit in publish.on_promote.timeout_seconds"
    finally:
        if process.returncode is None:
            # Its own session has its own process group, which goes as a whole, also when this run is cancelled.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code < 0:
        return f"was ended by signal {-code}"
    return f"failed with exit code {code}" if code else None


def _environment(promotion: Promotion) -> dict[str, str]:
    kept = {key: text for key, text in os.environ.items() if key in _PASSED_ON or key.startswith(_PREFIX)}
    return kept | {
        f"{_PREFIX}NAME": promotion.name,
        f"{_PREFIX}VERSION": promotion.version,
        f"{_PREFIX}ALIAS": promotion.alias,
        f"{_PREFIX}URI": promotion.uri,
        f"{_PREFIX}MANIFEST_SHA256": promotion.manifest_sha256,
    }


def _last_lines(output: IO[bytes]) -> list[str]:
    output.seek(max(0, output.seek(0, os.SEEK_END) - _SHOWN_BYTES))
    return output.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]
