"""The sections of a recipe that steps take as an argument: what can be set, with limits, defaults and words.

Defaults live here and nowhere else. Descriptions become the run form of the Prefect UI and the JSON schema for
editors. A key that no section knows is an error.
"""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.forms import PINNED, RARE, arrange_form
from tasks.values import MethodName, Name, ReferenceText, SettingValue, Size

TensorDtype = Literal["float32", "float16", "bfloat16"]
ModelType = Literal["decoder", "encoder", "reranker", "encoder-decoder"]
Loss = Literal["default", "lm_cocktail"]


def loss_problem(model_type: str, loss: str) -> str | None:
    """Say why models of a type have no such loss; None if they have."""
    if loss == "lm_cocktail" and model_type == "reranker":
        return (
            "loss lm_cocktail: LM_Cocktail measures no rerankers, so there are no numbers to reproduce; use loss: "
            "default"
        )
    return None


class Section(BaseModel):
    """A part of a recipe: frozen, strict about its keys, and without NaN and infinity, which JSON cannot hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=arrange_form)


class CandidateSettings(Section):
    """A model that is mixed."""

    name: Name = Field(description="Short name, unique in the recipe; weights and tables use it.")
    model: ReferenceText = Field(description="org/name@revision, s3://..., release:DEST@alias, or a path.")
    adapter: ReferenceText | None = Field(
        default=None,
        description="A LoRA adapter of PEFT that is added to model while it is scored and merged; same forms as model.",
    )
    role: Literal["target", "general", "skill"] | None = Field(
        default=None,
        description="target: the fine-tune whose task matters most (loss weighing with alpha). "
        "general and skill: for task_arithmetic.",
    )
    omega: float | None = Field(
        default=None, description="task_arithmetic: how much of this skill's task vector is added."
    )
    train_size: int | None = Field(
        default=None,
        description="data_size: how many examples it was trained on, above 0 and counted alike for all candidates.",
    )
    parameters: dict[str, SettingValue] | None = Field(
        default=None,
        description="The merge method's parameters of this candidate, by the field's names, such as density. What "
        "stands here counts before what stands under merge.parameters.",
    )
    optional: bool = Field(default=False, description="Left out and reported, not fatal, when it cannot be used.")
    allow_pickle: bool = Field(
        default=False,
        description="Read weights that exist only as pickled .bin files (with torch's weights_only, which runs no "
        "code), also of a base with the same reference. Without it only safetensors are read.",
    )
    digest: str | None = Field(
        default=None,
        description="Content that the reference must have (sha256:...); written by lock files.",
        json_schema_extra=PINNED,
    )
    adapter_digest: str | None = Field(
        default=None,
        description="Content that the adapter must have (sha256:...); written by lock files.",
        json_schema_extra=PINNED,
    )


class ScoreSettings(Section):
    """How the loss of each candidate on the examples is measured."""

    batch_tokens: int = Field(default=8192, ge=1, description="Tokens per batch, padding included; limits memory.")
    max_length: int = Field(
        default=2048,
        ge=8,
        description="Tokens per example. Longer prompts lose their beginning; a longer answer is an error. "
        "lm_cocktail: its max_input_length; the end is lost.",
    )
    dtype: TensorDtype = Field(
        default="float32", description="Precision of the forward pass; bfloat16 is faster but blurs small differences."
    )
    devices: Literal["auto"] | list[str] = Field(
        default="auto",
        description='auto: every CUDA device, else one worker per CPU core. Or a list: ["cuda:0"], ["cpu:0"]. '
        'Models that one GPU cannot hold: ["cuda:0+cuda:1"], each spread over both.',
    )
    timeout_seconds: float = Field(
        default=3600, gt=0, description="Time limit of one model on its device; then it is killed."
    )
    loss: Loss = Field(
        default="default",
        description="default, per example: mean cross-entropy of the answer's tokens (decoder, encoder-decoder), "
        "InfoNCE (encoder), cross-entropy of the positives among a row's texts (reranker). lm_cocktail: the numbers of "
        "the package LM_Cocktail, per batch, to compare with.",
    )
    batch_size: int = Field(
        default=2, ge=1, description="lm_cocktail: examples per batch. Its losses depend on it; no other loss does."
    )

    @property
    def unit(self) -> str:
        """What each loss belongs to: `example` or `batch`."""
        return "batch" if self.loss == "lm_cocktail" else "example"


class MergeSettings(Section):
    """How the candidates' tensors become one model."""

    method: MethodName = Field(
        default="linear",
        description="linear: weighted average. task_arithmetic: general + sum of omega x (skill - base). Each "
        "method is described, with its parameters and its paper, in the file of its name in tasks/arithmetic/methods.",
    )
    dtype: Literal[TensorDtype, "base"] = Field(
        default="base",
        description="Precision of the written tensors; base: each as in the base model. Sums are in float32.",
    )
    max_shard_size: Size = Field(default="5GB", description="Largest size of one safetensors file.")
    seed: int = Field(default=0, description="For methods that draw random numbers, such as DARE.")
    embeddings: Literal["base", "union"] | None = Field(
        default=None,
        description="Candidates with added tokens are merged by token: base keeps the base's vocabulary, union has the "
        "tokens of all. Left out: vocabularies that differ are an error.",
    )
    device: Annotated[str, Field(pattern=r"^(cpu|auto|cuda:\d+)$")] = Field(
        default="cpu",
        description="cpu; cuda:0 or another GPU; auto: a free GPU where there is one. Files are streamed from disk to "
        "disk, so that a GPU rarely gains anything, and its numbers may differ in the last bit. The CPU merges what a "
        "GPU cannot: other methods than linear, task_arithmetic and passthrough.",
    )
    split: bool = Field(
        default=False,
        description="With runner: ray: the cluster's nodes merge one output file each, from ranges of the models where "
        "they are, so that no machine needs room for a whole model. The cache must be on S3 or on storage that all "
        "nodes see.",
        json_schema_extra=RARE,
    )
    parameters: dict[str, SettingValue] = Field(
        default={},
        description="The method's parameters by the field's names, such as lambda, normalize or t: a number, true or "
        "false, a list of numbers over the depth of the model, or a list of {filter, value} by tensor name. Those of "
        "single candidates, such as density, may stand here for all of them.",
    )


class PromoteCommand(Section):
    """A program of the team's that is run each time an alias has moved to a new version."""

    command: list[str] = Field(
        min_length=1,
        description="Program and arguments; no shell. It finds the release in COCKTAIL_NAME, COCKTAIL_VERSION, "
        "COCKTAIL_ALIAS, COCKTAIL_URI and COCKTAIL_MANIFEST_SHA256; of the environment it is given PATH, HOME, LANG, "
        "TMPDIR and what begins with COCKTAIL_, no credentials.",
    )
    timeout_seconds: float = Field(default=600, gt=0, description="Then it is killed; the release stands.")


class ConnectionSettings(Section):
    """Named Prefect blocks with credentials, `type/name`; left out, the environment decides."""

    s3: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]+/[a-z0-9-]+$",
        description="aws-credentials/NAME, or secret/NAME with an object: endpoint_url, region, access_key_id, "
        "secret_access_key, session_token, kms_key_id, requester_pays.",
    )
    hub: str | None = Field(
        default=None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$", description="secret/NAME with a token of the Hub."
    )


class PublishSettings(Section):
    """Where the release goes."""

    to: list[ReferenceText] = Field(
        min_length=1,
        description="Destinations: folders, s3://bucket/prefix, hub://org, mlflow://. The first is the truth (not "
        "mlflow://, which holds no files), the others are completed if they lag.",
    )
    alias: Name = Field(default="champion", description="The name that readers follow.")
    promote: Literal["auto", "manual"] = Field(
        default="auto", description="auto: the alias moves when the gate passes. manual: `cocktail promote` moves it."
    )
    approval_hours: float | None = Field(
        default=None,
        gt=0,
        description="With promote: manual: how long the Prefect UI asks a person whether a version goes live; it waits "
        "on for `cocktail promote` afterwards. Left out: the UI does not ask.",
    )
    keep: int = Field(default=10, ge=2, description="Versions kept; never fewer than the live one and its predecessor.")
    allow_licences: list[str] | None = Field(
        default=None,
        description="Licences that base and candidates may have, e.g. [apache-2.0, mit]; others, and none stated, are "
        "refused. Left out: any.",
    )
    on_promote: PromoteCommand | None = Field(default=None, description="What is run after the alias has moved.")

    @model_validator(mode="after")
    def _asks_only_for_what_waits(self) -> "PublishSettings":
        if self.approval_hours is not None and self.promote == "auto":
            raise ValueError(
                f"approval_hours: {self.approval_hours:g} hours to approve what promote: auto sends live at once; "
                "write promote: manual, or leave approval_hours out"
            )
        return self

    @model_validator(mode="after")
    def _truth_holds_files(self) -> "PublishSettings":
        if self.to[0].startswith("mlflow://"):
            raise ValueError(
                f"to: the first destination is {self.to[0]}, which holds no files; put a folder, s3:// or hub:// first"
            )
        return self


class CacheSettings(Section):
    """Where results that need not be computed twice are kept."""

    folder: str | None = Field(
        default=None,
        description="Folder of the cache on this machine; left out: the cache folder of the user that runs this.",
    )
    shared: str | None = Field(
        default=None,
        description="s3://bucket/prefix at which machines share what they computed; the folder is asked first. Whoever "
        "may write there can change results of everybody. Left out: nothing is shared.",
    )
    share_downloads: bool = Field(
        default=False, description="Share downloaded model files there as well, by their content."
    )
    max_size: Size = Field(
        default="50GB",
        description="The least recently used entries go when the folder, or the shared prefix, grows past this.",
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> "CacheSettings":
        problems: list[str] = []
        if self.folder is not None and "://" in self.folder:
            problems.append(
                f"folder: {self.folder!r} is no folder of this machine, where models must lie to be read; a prefix on "
                "S3 goes under shared"
            )
        if self.shared is not None and not re.fullmatch(r"s3://[^/\s]+(/\S*)?", self.shared):
            problems.append(f"shared: {self.shared!r} is no prefix on S3; write s3://bucket/prefix")
        if self.share_downloads and self.shared is None:
            problems.append("share_downloads: there is nowhere to share them; name shared: s3://bucket/prefix as well")
        if problems:
            raise ValueError("; ".join(problems))
        return self
