"""Settings that differ from tensor to tensor, as `cocktail plan` shows them."""

import io

from rich.console import Console

from flows.terminal.layered_table import layered_table


def test_settings_stand_in_the_order_of_the_layers_and_empty_where_a_filter_fits_nothing():
    layered = {"density of law (mlp)": {"layer 10": 1 / 3}, "t": {"embeddings": 0.0, "layer 2": 0.5, "head": 1.0}}
    stream = io.StringIO()
    Console(file=stream, width=100).print(layered_table(layered))
    text = stream.getvalue()
    assert "setting              ┃ embeddings ┃ layer 2 ┃ layer 10 ┃ head" in text
    assert "│ density of law (mlp) │            │         │   0.3333 │      │" in text
    assert "│ t                    │          0 │     0.5 │          │    1 │" in text
