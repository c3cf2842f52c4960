"""MLflow as a destination: releases are registered there, their files stay in the truth.

A registered model is called like the recipe; each release is one of its MLflow versions, found again by its tags
`version` and `uri`; an alias points at the MLflow version of what is live in the truth. MLflow versions of releases
that were pruned stay: they are the registry's history.

    mlflow://                  the server that MLFLOW_TRACKING_URI names; the only way to one behind https
    mlflow://host:5000[/path]  the server at http://host:5000/path

Readers take the tag `uri`: the source that MLflow shows is the same, but for releases in a folder. MLflow refuses local
paths as a source (they could name any file of the server's machine), so a folder is registered as `folder:///path`.
"""

import logging
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import StoreError, TransientStoreError
from tasks.registry.files import AliasState
from tasks.registry.releases import Registry
from tasks.remote.retries import with_retries

logger = logging.getLogger(__name__)

_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\])(:\d+)?(/[\w./-]*)?")
# MLflow's own retries take four minutes, and 16 where packets are dropped. Here they end within two; the next run
# completes what is missing. What the environment already says stands.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_PASSING = frozenset({
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "ABORTED", "CANCELLED",
})  # fmt: skip
_REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
# Its database says so, as a bad request, to the second of two writers at once.
_LOST_RACE = "IntegrityError"
# MLflow itself tries again, too, and a server that is away is met again by the next run.
_ATTEMPTS = 2
# MLflow's words for an answer that no MLflow server gives; it has the code of a broken server.
_FOREIGN_ANSWER = "not in a valid JSON format"
# Columns of MLflow's database.
_MOST_CHARACTERS = 5000
_LONGEST_CAUSE = 300


def check_mlflow(address: str) -> None:
    """Ask the server for one registered model, to prove before any work that it is there; it changes nothing.

    Raises:
        StoreError: MLflow is not installed, the address is no MLflow server's, or it does not let us read.
        TransientStoreError: the server cannot be reached, or is broken for now.
    """
    server = _server_url(address)
    client = _connect(server)
    with _mlflow_errors(server):
        client.search_registered_models(max_results=1)


def register_release(address: str, registry: Registry, version: str, alias: str, state: AliasState | None) -> str:
    """Register a version, and the live one if it is another, and set the alias to the live one.

    Doing it again changes nothing; an alias that was moved, here or in the truth, is set to what the truth says.

    Args:
        address: `mlflow://` or `mlflow://host:port[/path]`.
        registry: The truth, where the files are.
        version: The release to register, live or not.
        alias: The name that readers follow, here as in the truth.
        state: The alias in the truth; None leaves MLflow's as it is.

    Returns:
        `mlflow://host:port/models/NAME/versions/N` of `version`.

    Raises:
        StoreError: as `check_mlflow`, or MLflow refuses the registration.
        TransientStoreError: the server cannot be reached, or is broken for now.
    """
    server = _server_url(address)
    client = _connect(server)
    where = f"mlflow://{_shown(server)}"

    def attempt() -> str:
        with _mlflow_errors(server):
            return _register_all(client, registry, version, alias, state)

    # Its database refuses one of two writers at once, and each attempt begins with looking.
    return f"{where}/models/{registry.name}/versions/{with_retries(attempt, where, attempts=_ATTEMPTS)}"


def _register_all(client: Any, registry: Registry, version: str, alias: str, state: AliasState | None) -> str:
    """The MLflow version of `version`, registered with what is live, to which the alias points."""
    aliases = _read_aliases(client, registry.name)
    live = [state.version] if state else []
    numbers = {name: _register(client, registry, name) for name in dict.fromkeys((*live, version))}
    if state and aliases.get(alias) != numbers[state.version]:
        client.set_registered_model_alias(registry.name, alias, numbers[state.version])
        logger.info("mlflow: %s -> %s of %s (%s)", alias, numbers[state.version], registry.name, state.version)
    return numbers[version]


def _server_url(address: str) -> str:
    """`http://...` or `https://...`; it may hold a password if the environment's does, so it is never shown whole."""
    location = address.removeprefix("mlflow://").rstrip("/")
    if "@" in location:
        raise StoreError(
            "the mlflow:// destination holds a user or a password; write mlflow://host:port and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if location and not _HOST.fullmatch(location):
        raise StoreError(
            f"{address!r} is no address of an MLflow server; write mlflow://host:port, or mlflow:// and set "
            "MLFLOW_TRACKING_URI (for https, too)"
        )
    server = f"http://{location}" if location else os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not server:
        raise StoreError("destination mlflow:// needs MLFLOW_TRACKING_URI, such as https://mlflow.example.com; set it")
    if urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).hostname:
        raise StoreError(
            "MLFLOW_TRACKING_URI names no server over http or https; releases are registered with such servers only"
        )
    return server


def _shown(server: str) -> str:
    parts = urlsplit(server)
    return parts.netloc.rpartition("@")[2] + parts.path


def _connect(server: str) -> Any:
    """A client; no request is made."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise StoreError(
            f"mlflow://{_shown(server)}: MLflow is not installed; pip install 'lm-cocktail-flows[mlflow]'"
        ) from error
    return MlflowClient(tracking_uri=server, registry_uri=server)


def _read_aliases(client: Any, name: str) -> dict[str, str]:
    """Alias to MLflow version of a registered model, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        client.create_registered_model(name, description="Released by lm-cocktail-flows; the tag `uri` says where.")
    except MlflowException as error:
        # Another run was faster, or an earlier attempt was carried out and its answer lost.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return {}


def _register(client: Any, registry: Registry, version: str) -> str:
    """The MLflow version of a release, made if there is none and corrected if the release was built again."""
    tags, description = _describe(registry, version)
    found = _find(client, registry.name, tags)
    if found is None:
        source = re.sub(r"^file:", "folder:", tags["uri"])
        client.create_model_version(registry.name, source, tags=tags, description=description, await_creation_for=0)
        # Asked again: of two runs, or two attempts of one, that registered it at once, the first one counts for both.
        found = _find(client, registry.name, tags)
        if found is None:
            raise StoreError(f"MLflow took version {version} of {registry.name} but does not list it")
        logger.info("mlflow: registered %s of %s as version %s", version, registry.name, found.version)
    for key in (key for key in tags if found.tags.get(key) != tags[key]):
        client.set_model_version_tag(registry.name, found.version, key, tags[key])
    if found.description != description:
        client.update_model_version(registry.name, found.version, description)
    return str(found.version)


def _find(client: Any, name: str, tags: dict[str, str]) -> Any:
    """The first MLflow version of a release in this very place; None if there is none."""
    listed = client.search_model_versions(f"name = '{name}' and tags.version = '{tags['version']}'")
    same = [found for found in listed if found.tags.get("uri") == tags["uri"]]
    return min(same, key=lambda found: int(found.version), default=None)


def _describe(registry: Registry, version: str) -> tuple[dict[str, str], str]:
    """Tags and description of a release."""
    manifest = registry.read_manifest(version)
    weights = ((model["name"], model["weight"]) for model in manifest.get("models", []) if model["weight"] is not None)
    tags = {
        "version": version,
        "uri": registry.store.uri(registry.version_path(version)),
        "sequence": str(manifest["sequence"]),
        "manifest_sha256": registry.manifest_sha256(version),
        "model_fingerprint": manifest["model_fingerprint"],
        "weights": ", ".join(f"{name} {weight:.4g}" for name, weight in weights),
    }
    reasons = manifest.get("gate", {}).get("reasons", [])
    description = "\n".join(["The gate let it pass:", *(f"- {reason}" for reason in reasons)])
    return {key: text[:_MOST_CHARACTERS] for key, text in tags.items()}, description[:_MOST_CHARACTERS]


@contextmanager
def _mlflow_errors(server: str) -> Generator[None]:
    """Say what went wrong at the server, in the project's errors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise _of_code(error.error_code, str(error), server) from error


def _of_code(code: str, message: str, server: str) -> StoreError:
    where = f"mlflow://{_shown(server)}"
    if code == "ENDPOINT_NOT_FOUND" or _FOREIGN_ANSWER in message:
        return StoreError(f"{where}: no MLflow server answers there; look at host, port and path")
    # The URL that MLflow puts into its messages may hold the password of MLFLOW_TRACKING_URI.
    cause = re.sub(r"//[^/@\s]*@", "//", message.strip().partition("\n")[0])[:_LONGEST_CAUSE]
    if code in _REFUSED:
        return StoreError(
            f"{where}: MLflow does not let us ({code}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            f"MLFLOW_TRACKING_TOKEN, of an account that may edit registered models: {cause}"
        )
    if code in _PASSING or _LOST_RACE in message:
        return TransientStoreError(f"{where}: the MLflow server cannot be reached or is broken for now: {cause}")
    return StoreError(f"{where}: MLflow answered {code}: {cause}")
