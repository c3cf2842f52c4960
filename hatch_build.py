"""Compiles the C files of `tasks/arithmetic/` when the package is built, where there is a C compiler.

Without one the package works all the same: torch then does what the library would, in more passes.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # pyright: ignore[reportMissingImports]

FOLDER = Path("tasks/arithmetic")
# Vectorised for several generations of processors, of which the loader chooses. Contraction would fuse products and
# sums where torch does not. Nobody asks for floating-point exceptions, and loops that choose by element
# (`a ? b / c : 0`) are vectorised only where none may be raised: DELLA takes 0.4 of the time so, and no bit changes.
# Short loops that a border of 32 bytes cuts take up to twice as long on some processors.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-falign-loops=32", "-shared", "-fPIC"]


class KernelsHook(BuildHookInterface):
    """hatchling's hook of this project."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the library beside its source, and add it to the wheel."""
        folder = Path(self.root) / FOLDER
        sources, library = sorted(map(str, folder.glob("*.c"))), folder / "_kernels.so"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        draft = library.with_suffix(".draft")
        try:
            subprocess.run([*compiler, *FLAGS, *sources, "-o", str(draft), "-lm"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            library.unlink(missing_ok=True)
            self.app.display_warning(f"{FOLDER}/*.c are not compiled, so that merges are slower: {error}")
            return
        # By rename: a running merge may have the old one mapped.
        draft.replace(library)
        build_data["artifacts"].append(str(FOLDER / library.name))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
