"""The rule for which heads count: sure over prompts, sure over
draws, and large enough."""

import pytest
import torch

from ioi_course.selection import that_count


def noise(*shape, seed=0):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_three_conditions():
    effects = 0.1 * noise(3, 100, 2, 3)
    effects[..., 0, 0] += 1
    effects[..., 0, 1] += 0.05  # sure (.0058 of error), too small
    effects[..., 0, 2] += torch.tensor([3.0, 0.0, 0.0])[:, None]  # one draw's
    effects[..., 1, 0] += 10 * noise(100, seed=1)  # unsure over prompts
    effects[..., 1, 1] -= 0.5
    found = that_count(effects, total=4.0)
    assert (
        found.heads == [(0, 0), (1, 1)]
        and found.raising == [(0, 0)]
        and found.lowering == [(1, 1)]
    )
    assert (0, 1) in that_count(effects, 4.0, share=0.01).heads


def test_errors_are_those_of_the_mean():
    effects = noise(4, 50, 1, 2)
    found = that_count(effects, 1.0)
    assert torch.allclose(found.over_prompts, effects.mean(0).std(0) / 50**0.5)
    assert torch.allclose(found.over_draws, effects.mean(1).std(0) / 2)
    assert torch.allclose(found.mean, effects.mean((0, 1)))
    assert that_count(effects[0], 1.0).over_draws is None


def test_noise_is_hardly_ever_taken_for_an_effect():
    false = sum(
        len(that_count(noise(3, 64, 30, 9, seed=seed), 1.0, share=0).heads)
        for seed in range(20)
    )
    assert false <= 2  # 5,400 heads without an effect


def test_a_negative_total_changes_signs_of_shares_only():
    effects = 0.1 * noise(64, 1, 2)
    effects[:, 0, 0] += 1
    found = that_count(effects, -4.0)
    assert found.heads == [(0, 0)] and found.table()["share"].iloc[0] < 0


@pytest.mark.parametrize(
    ("effects", "total", "rule", "says"),
    [
        (torch.ones(1, 2, 2), 1.0, {}, "at least two prompts"),
        (torch.ones(2, 2), 1.0, {}, r"\[draw, batch, layer, head\]"),
        (noise(4, 2, 2), 0.0, {}, "not 0"),
        (noise(4, 2, 2), float("nan"), {}, "not 0"),
        (noise(4, 2, 2), 1.0, {"k": 0}, "k above 0"),
        (noise(4, 2, 2), 1.0, {"share": 1.5}, "share in"),
    ],
)
def test_bad_input(effects, total, rule, says):
    with pytest.raises(ValueError, match=says):
        that_count(effects, total, **rule)
