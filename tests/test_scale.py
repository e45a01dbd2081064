"""A thousand prompts of attribution: peak memory of a process of its own, and the same
numbers as in one batch."""

import torch
from memory import in_a_process, linux

from ioi_course.attribution import direct_attribution
from ioi_course.prompts import IOIDataset

SCRIPT = """
import json, sys
import memory
from ioi_course.attribution import direct_attribution
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
model = load_model(sys.argv[1])
data = IOIDataset(model, int(sys.argv[2]), seed=1)
loading, before = memory.peak(), memory.restart()
result = direct_attribution(model, data, by="head", memory=float(sys.argv[3]))
print(json.dumps({"loading": loading, "before": before, "peak": memory.peak(),
                  "last": result.values[-3:].tolist(),
                  "shape": list(result.values.shape)}))
"""


def measure(model: str, n: int, memory: float) -> dict:
    """Attribution by head in a fresh process, with batches of so many GB."""
    return in_a_process(SCRIPT, model, n, memory)


@linux
def test_a_thousand_prompts_stay_under_two_gigabytes(model):
    measured = measure("synthetic", 1000, memory=0.5)
    assert measured["shape"] == [1000, 12, 12]
    assert max(measured["loading"], measured["peak"]) < 2, measured
    # the budget of a batch
    assert measured["peak"] - measured["before"] < 0.5, measured
    data = IOIDataset(model, 1000, seed=1)
    last = direct_attribution(model, data[995:], by="head").values[-3:]
    torch.testing.assert_close(
        torch.tensor(measured["last"], dtype=torch.float64), last, rtol=0, atol=1e-8
    )


def test_batches_and_one_batch_give_the_same(model):
    data = IOIDataset(model, 60, seed=1)
    one_batch = direct_attribution(model, data, by="head", memory=2)
    batches = direct_attribution(model, data, by="head", memory=0.05)
    torch.testing.assert_close(batches.values, one_batch.values, rtol=0, atol=1e-8)
    torch.testing.assert_close(batches.error, one_batch.error, rtol=0, atol=1e-8)


@linux
def test_the_shape_of_gpt2_takes_little_more_than_its_weights(random_gpt2):
    measured = measure(str(random_gpt2), 400, memory=0.1)
    assert measured["shape"] == [400, 12, 12]
    # 0.14 to 0.23; with each z kept 0.40 to 0.49
    assert measured["peak"] - measured["before"] < 0.32, measured
