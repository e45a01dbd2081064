"""Published numbers: the data fit each other and the check compares, on GPT-2
small and on it alone."""

import numpy as np
import pytest
import torch

from ioi_course import reference
from ioi_course.reference import PUBLISHED, check, published, table


@pytest.fixture
def as_gpt2_small(monkeypatch):
    """Whatever the model is, it counts as GPT-2 small."""
    monkeypatch.setattr(reference, "is_gpt2_small", lambda model: True)


def test_the_data_are_complete():
    assert len(PUBLISHED) > 40
    for key, figure in PUBLISHED.items():
        assert key == figure.key and figure.source and figure.quantity and figure.why
        assert len(figure.values) == len(figure.labels) == len(set(figure.labels)) >= 1
        assert (
            figure.tolerance >= 0
            and figure.bound in ("=", ">", "<")
            and figure.bos in (True, False, None)
        )
        assert figure.off(figure.values) == 0


def test_the_data_fit_each_other():
    eight = published("demo.logit_diff_per_prompt").values
    assert len(eight) == 8 and sum(eight) / 8 == pytest.approx(
        published("demo.logit_diff").values[0], abs=5e-4
    )
    assert (
        published("demo.corrupted_logit_diff").values[0]
        == -published("demo.logit_diff").values[0]
    )
    logits, probs = published("demo.example_logits"), published("demo.example_probs")
    assert logits.labels == probs.labels
    ratios = np.exp(np.array(logits.values) - logits.values[0])
    assert np.array(probs.values) / probs.values[0] == pytest.approx(ratios, rel=0.01)
    before, after = (
        np.array(published("demo.ln_scale").values),
        np.array(published("demo.ln_scale_ablated").values),
    )
    assert (before / after).mean() == pytest.approx(
        published("demo.ln_scale_ratio").values[0], abs=1e-3
    )
    kept, inverted = np.array(published("paper.signals").values).reshape(2, 3)
    position, token = (
        (kept - inverted).mean() / 2,
        (kept[0] - kept[2] + inverted[0] - inverted[2]) / 4,
    )
    assert (position, token) == pytest.approx(
        published("paper.signal_fit").values, abs=0.006
    )


@pytest.mark.parametrize("key", PUBLISHED)
def test_inside_the_tolerance(key, model, as_gpt2_small):
    figure = published(key)
    for sign in (-1, 1):
        near = [value + sign * 0.99 * figure.tolerance for value in figure.values]
        assert check(key, near, model).compared


@pytest.mark.parametrize("key", PUBLISHED)
def test_outside_the_tolerance(key, model, as_gpt2_small):
    figure = published(key)
    for sign in (-1, 1):
        for i in range(len(figure.values)):
            far = list(figure.values)
            far[i] += sign * (1.01 * figure.tolerance + 1e-6)
            if (figure.bound, sign) in ((">", 1), ("<", -1)):
                assert check(key, far, model).compared
            else:
                with pytest.raises(AssertionError):
                    check(key, far, model)


def test_the_error_shows_both_numbers(model, as_gpt2_small):
    with pytest.raises(AssertionError) as caught:
        check("demo.logit_diff", 2.9, model)
    for part in (
        "3.552",
        "2.900",
        "off by 0.652",
        "tolerance 0.01",
        "exploratory analysis demo, with BOS",
    ):
        assert part in str(caught.value)


def test_one_of_eight_is_enough_to_fail(model, as_gpt2_small):
    eight = list(published("demo.logit_diff_per_prompt").values)
    shown = check("demo.logit_diff_per_prompt", eight, model)
    assert "off by 0 at most" in repr(shown) and len(shown.table()) == 8
    eight[5] -= 0.1
    with pytest.raises(AssertionError, match="off by 0.1 at most"):
        check("demo.logit_diff_per_prompt", eight, model)


@pytest.mark.parametrize(
    "measured",
    [-100.0, torch.tensor(-100.0), np.float32(-100), [-100], torch.tensor([-100.0])],
)
def test_another_model_is_not_compared(model, measured):
    shown = check("demo.logit_diff", measured, model)
    assert not shown.compared and shown.measured == (-100.0,)
    for text in (repr(shown), shown._repr_html_()):
        assert (
            "not compared: this is synthetic" in text
            and "3.552" in text
            and "-100.000" in text
        )
        assert "measured (synthetic)" in text and "published (GPT-2 small)" in text


def test_bounds_are_shown(model):
    assert "≥ 0.95" in repr(check("paper.copy_score", 0.99, model))
    assert "≥ 0.95" in table().loc["paper.copy_score", "published"]


def test_the_table_has_every_figure():
    shown = table()
    assert list(shown.index) == list(PUBLISHED)
    assert shown.loc["demo.logit_diff"].tolist()[1:] == ["3.552", "0.01", "with"]
    assert "prompt 4 1.720," in shown.loc["demo.logit_diff_per_prompt", "published"]
    assert shown.loc["BPE.token_ids", "published"] == "Mary 5335, John 1757, BOS 50256"


def test_token_ids(gpt2_tokenizer):
    ids = [
        *gpt2_tokenizer.encode(" Mary John", add_special_tokens=False),
        gpt2_tokenizer.bos_token_id,
    ]
    assert published("BPE.token_ids").values == tuple(ids)


def test_unknown_keys(model):
    with pytest.raises(ValueError, match="did you mean demo.logit_diff or"):
        check("demo.logit_dif", 3.5, model)
    with pytest.raises(ValueError, match="lists them all"):
        published("zzzzzz")
    with pytest.raises(ValueError, match="None"):
        published(None)


@pytest.mark.parametrize("gpt2_small", [True, False])
def test_bad_measurements(model, monkeypatch, gpt2_small):
    monkeypatch.setattr(reference, "is_gpt2_small", lambda model: gpt2_small)
    with pytest.raises(ValueError, match=r"8 number\(s\) \(prompt 0, .*; 1 measured"):
        check("demo.logit_diff_per_prompt", 3.552, model)
    with pytest.raises(ValueError, match=r"1 number\(s\); 2 measured"):
        check("demo.logit_diff", [3.552, 3.552], model)
    with pytest.raises(ValueError, match="not finite"):
        check("demo.logit_diff", float("nan"), model)


@pytest.mark.gpt2
def test_the_demo_on_gpt2_small():
    """The real thing: runs where GPT-2 small's weights are at hand."""
    from ioi_course.metrics import logit_diff
    from ioi_course.models import in_cache, load_model
    from ioi_course.prompts import IOIDataset

    if not in_cache("gpt2-small"):
        pytest.skip("the weights of GPT-2 small are not in the cache")
    model = load_model("gpt2-small", device="cpu")
    demo = IOIDataset.demo(model)
    with torch.inference_mode():
        per_prompt = logit_diff(model(demo.tokens), demo, per_prompt=True)
    assert check("demo.logit_diff_per_prompt", per_prompt, model).compared
    assert check("demo.logit_diff", per_prompt.mean(), model).compared
