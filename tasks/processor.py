"""What of the processor decides the bytes of a merge.

torch multiplies and adds in one rounding where the processor can (FMA: x86-64-v3 and newer, all of ARM64). Between such
processors merges agree byte for byte; one that cannot gives elements that differ by at most one unit in the last place
(measured with torch's `default` CPU capability).
"""

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def has_fma() -> bool | None:
    """Whether multiplications and additions can be fused; None where the system does not say."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else "fma" in flags
