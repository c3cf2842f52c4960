"""Settings for all tests."""

import os

from hypothesis import settings

# One thread per process: several test processes share the cores, and thread pools that wait for each other are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shared machine may be slow at any moment, which says nothing about the code.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
