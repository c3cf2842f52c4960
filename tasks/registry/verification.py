"""Whether a release is what its manifest says: every file there, unchanged, and nothing else."""

from tasks.errors import ReleaseError
from tasks.registry.files import manifest_files
from tasks.registry.releases import MANIFEST_FILE, Registry


def verify_release(registry: Registry, version_or_alias: str) -> list[str]:
    """Hash every file of a release again.

    Returns:
        Each problem in a sentence: a file that is missing, changed or extra, a manifest that is damaged or is not the
        one that an alias was moved to. Empty if all is well.

    Raises:
        NotFoundError: there is no such version or alias.
    """
    version = registry.resolve(version_or_alias)
    try:
        manifest = registry.read_manifest(version)
        expected = manifest_files(manifest)
    except ReleaseError as error:
        return [str(error)]
    problems = find_incomplete_files(registry, version)
    if manifest["version"] != version:
        problems.append(f"{MANIFEST_FILE}: changed: it is of version {manifest['version']}")
    folder = registry.version_path(version)
    found = registry.store.list_files(folder)
    for path in (path for path, digest in expected.items() if found.get(path) == digest.size):
        actual = registry.store.compute_digest(f"{folder}/{path}").sha256
        if actual != expected[path].sha256:
            problems.append(f"{path}: changed: expected sha256 {expected[path].sha256}, found {actual}")
    extra = (path for path in found if path != MANIFEST_FILE and path not in expected)
    problems += [f"{path}: extra: the manifest does not know it" for path in extra]
    manifest_sha256 = registry.manifest_sha256(version)
    for alias, state in registry.alias_states().items():
        if state.version == version and state.manifest_sha256 != manifest_sha256:
            problems.append(
                f"{MANIFEST_FILE}: changed: alias {alias} was moved to sha256 {state.manifest_sha256}, found "
                f"{manifest_sha256}"
            )
    return problems


def find_incomplete_files(registry: Registry, version: str) -> list[str]:
    """Files that are missing or have another size, in sentences: what is seen without reading gigabytes."""
    found = registry.store.list_files(registry.version_path(version))
    problems: list[str] = []
    for path, digest in manifest_files(registry.read_manifest(version)).items():
        if path not in found:
            problems.append(f"{path}: missing")
        elif found[path] != digest.size:
            problems.append(f"{path}: changed: expected {digest.size} bytes, found {found[path]}")
    return problems
