"""Whether a release is what its manifest says: every file there, unchanged, and nothing else."""

from tasks.errors import ReleaseError
from tasks.parallel import map_requests
from tasks.records import FileDigest
from tasks.registry.files import manifest_files
from tasks.registry.releases import MANIFEST_FILE, Registry


def verify_release(registry: Registry, version_or_alias: str) -> list[str]:
    """Read every file of a release again, whole, and hash it.

    Returns:
        Each problem in a sentence: a file that is missing, changed or extra, a manifest that is damaged or is not the
        one that an alias was moved to. Empty if all is well.

    Raises:
        NotFoundError: there is no such version or alias.
    """
    return _find_problems(registry, registry.resolve(version_or_alias), reads_all=True)


def find_damage(registry: Registry, version: str) -> list[str]:
    """The problems of `verify_release`, but as cheaply as the store can tell them for sure (`Store.holds`).

    A folder is hashed all the same; of what lies on S3 or the Hub, nothing is downloaded.
    """
    return _find_problems(registry, version, reads_all=False)


def find_incomplete_files(registry: Registry, version: str) -> list[str]:
    """Files that are missing or have another size, in sentences: what is seen without reading gigabytes."""
    found = registry.store.list_files(registry.version_path(version))
    return _incomplete(manifest_files(registry.read_manifest(version)), found)


def _find_problems(registry: Registry, version: str, *, reads_all: bool) -> list[str]:
    try:
        manifest = registry.read_manifest(version)
        expected = manifest_files(manifest)
    except ReleaseError as error:
        return [str(error)]
    found = registry.store.list_files(registry.version_path(version))
    problems = _incomplete(expected, found)
    if manifest["version"] != version:
        problems.append(f"{MANIFEST_FILE}: changed: it is of version {manifest['version']}")
    problems += _changed(registry, version, {p: d for p, d in expected.items() if found.get(p) == d.size}, reads_all)
    extra = (path for path in found if path != MANIFEST_FILE and path not in expected)
    problems += [f"{path}: extra: the manifest does not know it" for path in extra]
    return problems + _other_manifests(registry, version) + find_strays(registry, version)


def find_strays(registry: Registry, version: str) -> list[str]:
    """What readers of an alias that points at this version get besides or instead of it."""
    folder = registry.version_path(version)
    return [
        problem
        for alias, state in registry.alias_states().items()
        if state.version == version
        for problem in registry.store.pointer_problems(registry.alias_path(alias), folder)
    ]


def _incomplete(expected: dict[str, FileDigest], found: dict[str, int]) -> list[str]:
    problems: list[str] = []
    for path, digest in expected.items():
        if path not in found:
            problems.append(f"{path}: missing")
        elif found[path] != digest.size:
            problems.append(f"{path}: changed: expected {digest.size} bytes, found {found[path]}")
    return problems


def _changed(registry: Registry, version: str, expected: dict[str, FileDigest], reads_all: bool) -> list[str]:
    """Files of the right size with other content."""
    folder = registry.version_path(version)

    def problem(path: str) -> str | None:
        where, digest = f"{folder}/{path}", expected[path]
        if not reads_all and registry.store.holds(where, digest):
            return None
        # What `holds` denies is read: the store may only not know the content, and a message names what was found.
        actual = registry.store.compute_digest(where).sha256
        if actual == digest.sha256:
            return None
        return f"{path}: changed: expected sha256 {digest.sha256}, found {actual}"

    return [found for found in map_requests(problem, expected) if found is not None]


def _other_manifests(registry: Registry, version: str) -> list[str]:
    """Aliases that point at this version, but were moved to another manifest."""
    actual = registry.manifest_sha256(version)
    return [
        f"{MANIFEST_FILE}: changed: alias {alias} was moved to sha256 {state.manifest_sha256}, found {actual}"
        for alias, state in registry.alias_states().items()
        if state.version == version and state.manifest_sha256 != actual
    ]
