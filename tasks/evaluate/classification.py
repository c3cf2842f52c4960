"""Classification by a decoder: the label it finds most likely after the input, as lm-eval's `acc`.

Only a worker computes with this module, so what is heavy is imported in its functions: whoever merely names
`classify` loads no torch.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data.examples import digest_rows, read_rows
from tasks.errors import ExampleDataError, NonFiniteError

# Differences of log-likelihoods that are rounding, in nats.
_SAME_LIKELIHOOD = 1e-6


def classify(
    device: str,
    folder: str,
    data_path: str,
    data_sha256: str,
    max_length: int,
    dtype: str,
    batch_tokens: int,
    adapter: str | None = None,
) -> list[float]:
    """1.0 for every row whose own label is the most likely one, else 0.0.

    The labels are the distinct outputs of the file. A label's likelihood is the sum over its tokens after the input;
    between equal ones the first in alphabetical order wins. Labels of one token cost one forward pass per row
    together, since they share their context.

    Args:
        device: As torch calls it.
        folder: The checkpoint.
        data_path: JSON Lines of `{"input", "output"}`.
        data_sha256: What `tasks.data.examples.digest_rows` found when the run was planned.
        max_length: Tokens per text; a longer one loses its beginning.
        dtype: Precision of the forward pass.
        batch_tokens: Tokens per batch, padding included.
        adapter: A folder of PEFT whose LoRA is added to the checkpoint.

    Returns:
        One value per row, in the order of the rows.

    Raises:
        ExampleDataError: the data is damaged, not what was planned with, or has one label only.
        NonFiniteError: likelihoods are NaN or infinite, or the same for every label of every row.
    """
    from tasks.losses.decoder import answer_likelihoods
    from tasks.resident import resident_decoder

    rows = read_rows(Path(data_path), "classification")
    if digest_rows(rows) != data_sha256:
        raise ExampleDataError(f"{data_path}: the data has changed since the run was planned; start the run again")
    labels = sorted({row["output"] for row in rows})
    if len(labels) < 2:
        raise ExampleDataError(f"{data_path}: every row has the output {labels[0]!r}; with one label all are right")
    decoder = resident_decoder(Path(folder), dtype, device, Path(adapter) if adapter else None)
    prompts, answers = [row["input"] for row in rows for _ in labels], labels * len(rows)
    try:
        likelihoods = answer_likelihoods(decoder, prompts, answers, batch_tokens=batch_tokens, max_length=max_length)
    except ExampleDataError as error:
        raise ExampleDataError(
            f"{data_path}: counting each row {len(labels)} times, once per label: {error}"
        ) from error
    flat = np.array([likelihood.log_likelihood for likelihood in likelihoods])
    chosen = choose_labels(flat.reshape(len(rows), len(labels)))
    return [float(labels[index] == row["output"]) for index, row in zip(chosen, rows, strict=True)]


def choose_labels(log_likelihoods: NDArray[np.floating]) -> list[int]:
    """The label of every row: the most likely one, between equal ones the first.

    Args:
        log_likelihoods: In nats, finite, shape (n_rows, n_labels).

    Raises:
        NonFiniteError: the model does not tell labels apart in any row.
    """
    spread = log_likelihoods.max(axis=1) - log_likelihoods.min(axis=1)
    if spread.max() <= _SAME_LIKELIHOOD:
        raise NonFiniteError("every label is equally likely in every row; the checkpoint is broken")
    return [int(index) for index in log_likelihoods.argmax(axis=1)]
