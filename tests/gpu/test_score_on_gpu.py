"""A CUDA device gives the losses that a CPU gives. Needs one device: `make test-gpu`."""

import pytest

from flows.recipe import demo_recipe_path, read_recipe
from tasks.cache import ResultCache
from tasks.plan.plan import plan_refresh
from tasks.score.candidate import score_candidate

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("family", ["decoder", "encoder"])
def test_losses_on_a_gpu_are_those_on_a_cpu(family: str, tmp_path):
    recipe = read_recipe(demo_recipe_path(family), [f"publish.to=[{str(tmp_path / 'releases')!r}]"])
    planned = plan_refresh(recipe, ResultCache(tmp_path / "plan"))
    losses = {}
    for device in ("cpu:0", "cuda:0"):
        settings = recipe.score.model_copy(update={"devices": [device]})
        cache = ResultCache(tmp_path / device)
        candidate = planned.candidates[0]
        losses[device] = score_candidate(candidate, planned.examples, recipe.model_type, settings, cache).losses
    # Matrix products are summed in another order there; TF32 is off by default in torch.
    assert losses["cuda:0"] == pytest.approx(losses["cpu:0"], abs=1e-3)
