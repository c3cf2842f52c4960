"""How firmly examples choose among mixtures. Expected values by hand."""

from collections.abc import Callable

import pytest

from tasks.mixtures.mixing import MixtureLosses
from tasks.weigh.firmness import Firmness, add_firmness, assess_choice
from tasks.weigh.greedy import pick_soup
from tasks.weigh.search import search_omegas
from tasks.weigh.sweep import sweep_shares
from tasks.weigh.trials import Choice
from tasks.weight_records import Trust


def sweep(
    losses: Callable[[float], tuple[float, ...]], general: Callable[[float], float] = float, limit: float | None = None
) -> Choice:
    """Of shares 0, 0.5 and 1 of the target `new`, whose losses are functions of that share."""

    def measure(weights: dict[str, float]) -> MixtureLosses:
        return MixtureLosses(losses(weights["new"]), (general(weights["new"]),))

    return sweep_shares(measure, ["old", "new"], "new", [0, 0.5, 1], limit)


def test_an_example_without_which_another_mixture_is_chosen_is_named():
    # Sums of 0, 0.5 and 1 are 4, 3 and 4; without the third example 3, 2 and 0.
    by_share = {0: (2.0, 1.0, 1.0), 0.5: (1.0, 1.0, 1.0), 1: (0.0, 0.0, 4.0)}
    firmness = assess_choice(sweep(by_share.__getitem__))
    assert firmness.leave_one_out == {"old": (0.0, 0.5), "new": (0.5, 1.0)}
    assert (firmness.most_influential, firmness.influence) == (3, 0.5)
    assert firmness.warnings == (
        "one example of 3 moves a weight far: without example 3, old would weigh 0.000, not 0.500",
    )


def test_of_losses_of_batches_batches_are_named():
    by_share = {0: (2.0, 1.0, 1.0), 0.5: (1.0, 1.0, 1.0), 1: (0.0, 0.0, 4.0)}
    firmness = assess_choice(sweep(by_share.__getitem__), "batch")
    assert firmness.warnings == (
        "one batch of 3 moves a weight far: without batch 3, old would weigh 0.000, not 0.500",
    )
    assert add_firmness(Trust(1.0), firmness).unit == "batch"
    assert assess_choice(sweep(lambda share: (share,)), "batch").warnings == (
        "the losses come from a single batch: one more may turn the weights round",
    )


def test_an_interval_holds_what_other_draws_of_the_examples_choose():
    # Of 40 examples some prefer all of it and the others none of it by as much; which is chosen tells the majority of
    # a resample. With 25 for it they lose in 3.8 % of resamples (binomial, P(X <= 19)), with 29 in 0.1 %; the lower
    # limit of the expanded interval is at 2.0 %.
    def losses(n_for: int) -> dict[float, tuple[float, ...]]:
        n = 40 - n_for
        return {0: (1.0,) * n_for + (0.0,) * n, 0.5: (0.6,) * 40, 1: (0.0,) * n_for + (1.0,) * n}

    open_choice, firm = (assess_choice(sweep(losses(n_for).__getitem__)) for n_for in (25, 29))
    assert open_choice.intervals == {"old": (0.0, 1.0), "new": (0.0, 1.0)}
    # No single one of them decides.
    assert open_choice.leave_one_out == {"old": (0.0, 0.0), "new": (1.0, 1.0)}
    assert open_choice.most_influential is None and open_choice.warnings == ()
    assert firm.intervals == {"old": (0.0, 0.0), "new": (1.0, 1.0)}


def test_a_mixture_over_the_limit_is_never_chosen_again():
    firmness = assess_choice(sweep(lambda share: (1 - share, 1 - share, share), limit=0.5))
    assert firmness.intervals["new"] == (0.0, 0.5)


def test_where_no_mixture_keeps_the_limit_the_examples_decide_nothing():
    choice = sweep(lambda share: (1 - share, share), limit=-1.0)
    assert choice.contenders == () and assess_choice(choice) == Firmness()


def test_one_example_is_too_few_to_say():
    assert assess_choice(sweep(lambda share: (1 - share,))) == Firmness(
        warnings=("the losses come from a single example: one more may turn the weights round",)
    )


def test_of_equals_the_one_that_was_chosen_wins():
    # A soup takes in a candidate that changes nothing; the mixture of the first alone is as good.
    soup = pick_soup(lambda weights: MixtureLosses((1.0, 2.0), None), {"a": 1.0, "b": 1.0})
    assert soup.chosen.weights == {"a": 0.5, "b": 0.5}
    assert assess_choice(soup).intervals == {"a": (0.5, 0.5), "b": (0.5, 0.5)}


def test_the_pull_of_a_search_counts_in_every_draw():
    # Loss 0.04 at omega 0 and 0 from 1 on: less than the pull of 0.05, in all draws.
    found = search_omegas(
        lambda weights: MixtureLosses((0.04 * (1 - weights["a"]),) * 5, None),
        ["a"], None, l1=0.05, bounds=(0.0, 1.0), n_mixtures=2,
    )  # fmt: skip
    assert found.chosen.weights == {"a": 0.0} and len(found.contenders) == 2
    assert assess_choice(found).intervals == {"a": (0.0, 0.0)}


def test_its_warnings_follow_those_of_the_weights():
    firmness = Firmness({"a": (0.0, 1.0)}, {"a": (0.5, 1.0)}, 2, 0.5, ("far",))
    trust = add_firmness(Trust(1.0, ("alone",)), firmness)
    assert trust == Trust(1.0, ("alone", "far"), {"a": (0.0, 1.0)}, {"a": (0.5, 1.0)}, 2, 0.5)
    assert trust.most_influential == 2 and trust.influence == pytest.approx(0.5)
