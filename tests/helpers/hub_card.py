"""Checks of a model card's metadata: the part of the Hub's rules that a merged model's card can break.

Rules: the block of YAML is a mapping; `license` is an identifier of the Hub's list; `base_model` names models;
`base_model_relation` is one of four; `library_name`, `pipeline_tag` and `license_name` are text; `tags` and `datasets`
are lists of text; `model-index` has names, results, tasks, data sets and metrics. Other keys are not looked at.
Licence identifiers: https://huggingface.co/docs/hub/repositories-licenses
"""

import re
from typing import Any

import yaml

LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 llama3 llama3.1
    llama3.2 llama3.3 llama4 gemma fair-noncommercial-research-license unknown other
    """.split()
)
RELATIONS = ("adapter", "merge", "quantized", "finetune")
_MODEL_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def card_metadata(content: str) -> dict[str, Any]:
    """The metadata between the first two lines of dashes; {} if there is none or it is broken."""
    front = _FRONT.match(content)
    try:
        metadata = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def validate_card(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the metadata of a model card."""
    front = _FRONT.match(content)
    if front is None or not front[1].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(front[1])
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"], []
    if not isinstance(metadata, dict):
        return ["metadata must be a mapping"], []
    return [*_scalars(metadata), *_lists(metadata), *_base_models(metadata), *_model_index(metadata)], []


def _scalars(metadata: dict[str, Any]) -> list[str]:
    errors = [
        f'"{key}" must be a string'
        for key in ("library_name", "pipeline_tag", "license_name", "license_link", "model_name")
        if key in metadata and not isinstance(metadata[key], str)
    ]
    for licence in _as_list(metadata.get("license", [])):
        if not isinstance(licence, str) or licence not in LICENCES:
            errors.append(f'"license" {licence!r} must be one of [{", ".join(sorted(LICENCES))}]')
    relation = metadata.get("base_model_relation", RELATIONS[0])
    if relation not in RELATIONS:
        errors.append(f'"base_model_relation" {relation!r} must be one of [{", ".join(RELATIONS)}]')
    return errors


def _lists(metadata: dict[str, Any]) -> list[str]:
    errors: list[str] = []
    for key in ("tags", "datasets", "metrics", "language"):
        value = metadata.get(key, [])
        if isinstance(value, str) and key in ("datasets", "language"):
            continue
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            errors.append(f'"{key}" must be an array of strings')
    return errors


def _base_models(metadata: dict[str, Any]) -> list[str]:
    models = metadata.get("base_model", [])
    if not isinstance(models, str | list):
        return ['"base_model" must be a string or an array of strings']
    return [
        f'"base_model" with value {model!r} is not valid. Use a model id from https://hf.co/models.'
        for model in _as_list(models)
        if not isinstance(model, str) or not _MODEL_ID.fullmatch(model)
    ]


def _model_index(metadata: dict[str, Any]) -> list[str]:
    index = metadata.get("model-index", [])
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors: list[str] = []
    for number, model in enumerate(index):
        where = f'"model-index[{number}]'
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append(f'{where}.name" is required')
            continue
        results = model.get("results")
        if not isinstance(results, list):
            errors.append(f'{where}.results" must be an array')
            continue
        for at, result in enumerate(results):
            errors += _result(f"{where}.results[{at}]", result)
    return errors


def _result(where: str, result: Any) -> list[str]:
    if not isinstance(result, dict):
        return [f'{where}" must be an object']
    errors = [
        f'{where}.{part}.{key}" is required'
        for part, keys in (("task", ["type"]), ("dataset", ["name", "type"]))
        for key in keys
        if not isinstance(result.get(part), dict) or not isinstance(result[part].get(key), str)
    ]
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*errors, f'{where}.metrics" must be a non-empty array']
    for number, metric in enumerate(metrics):
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str) or "value" not in metric:
            errors.append(f'{where}.metrics[{number}]" needs "type" and "value"')
    return errors


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
