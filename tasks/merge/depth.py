"""What merging needs of settings by depth; it stands lower, in `tasks.layered` and `tasks.depth`, as recipes use it."""

from tasks.depth import depth_of
from tasks.layered import Setting, resolve

__all__ = ["Setting", "depth_of", "resolve"]
