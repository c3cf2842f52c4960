"""Which versions are kept, and removing the others."""

import logging
from collections.abc import Collection

from tasks.registry.releases import Registry

logger = logging.getLogger(__name__)


def prune(registry: Registry, keep: int, protected: Collection[str] = ()) -> list[str]:
    """Remove the oldest versions until `keep` are left.

    Never removed are the live version of any alias, the one a rollback of it would go to, blocked ones (a rollback
    must stay explainable) and those in `protected`; if these are more than `keep`, more are kept. Versions without a
    manifest are not looked at: another run may be writing them.

    Returns:
        The versions that were removed.

    Raises:
        ReleaseError: an alias is damaged.
    """
    # Of a damaged alias nobody knows what it needs, so then nothing is removed.
    states, existing = registry.alias_states(strict=True).values(), registry.versions()
    blocked = {block.version for state in states for block in state.blocked}
    spared = {*protected, *blocked, *(state.version for state in states)}
    spared |= {before for state in states if (before := state.predecessor(existing, blocked)) is not None}
    excess = max(0, len(existing) - keep)
    removed = [version for version in existing if version not in spared][:excess]
    for version in removed:
        registry.store.delete_tree(registry.version_path(version))
        logger.info("prune: removed %s", version)
    return removed
