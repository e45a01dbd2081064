"""Checks of chapter 3, the logit lens."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.lens import final_norm

__all__ = ["read_stream", "lens_at_end", "largest_step", "hold_the_scale", "settled_at", "fold_layer_norm"]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _models(seed: int) -> list:
    """Models with processed weights and with raw ones, in which the final LayerNorm has a weight and a bias."""
    return [random_model(seed), random_model(seed + 1, processing=()), random_model(seed + 2, n_layers=2)]


# --- 3.1 ---


def _read_stream(resid: Float[Tensor, "batch d_model"], model) -> Float[Tensor, "batch vocab"]:
    return final_norm(model, resid) @ model.W_U + model.b_U


def _read_stream_cases(seed: int) -> list[tuple]:
    generator = _generator(seed)
    return [
        (3 * _normal(generator, batch, model.cfg.d_model) + shift, model)
        for model in _models(seed)[:2]
        for batch, shift in ((1, 0.0), (4, 2.0), (3, -1.0))
    ]


def _without_weight_and_bias(resid: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(resid, resid.shape[-1:], eps=1e-5)


read_stream = Exercise(
    number="3.1",
    title="Read the stream",
    solution=_read_stream,
    cases=_read_stream_cases,
    misconceptions=(
        Misconception(
            "final LayerNorm forgotten",
            "The unembedding is applied to the stream as it is. What does the model do to the stream before that?",
            lambda resid, model: resid @ model.W_U + model.b_U,
        ),
        Misconception(
            "final LayerNorm without its weight and bias",
            "Mean and scale are right, but on raw weights ln_final multiplies by a weight and adds a bias, too.",
            lambda resid, model: _without_weight_and_bias(resid) @ model.W_U + model.b_U,
        ),
        Misconception(
            "bias of the unembedding forgotten",
            "Every prediction is off by the same vector. The unembedding has a weight W_U and something beside it.",
            lambda resid, model: final_norm(model, resid) @ model.W_U,
        ),
        Misconception(
            "LayerNorm after the unembedding",
            "It is the stream that is normalised, not the logits: the order of the two steps is exchanged.",
            lambda resid, model: _without_weight_and_bias(resid @ model.W_U + model.b_U),
        ),
        Misconception(
            "LayerNorm of a block taken for the final one",
            "A LayerNorm inside of a block is applied. After the last block comes one of its own, ln_final.",
            lambda resid, model: model.blocks[-1].ln2(resid) @ model.W_U + model.b_U,
        ),
        Misconception(
            "softmax of the logits",
            "These are probabilities. Asked for are the logits, from which softmax would make them.",
            lambda resid, model: _read_stream(resid, model).softmax(dim=-1),
        ),
    ),
)


# --- 3.2 ---


def _lens_of(logits: Float[Tensor, "batch vocab"], answers: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch"]:
    io, s = logits.gather(1, answers).unbind(dim=1)
    return io - s


def _read_at(
    model, resid: Float[Tensor, "batch pos d_model"], pos: Int[Tensor, "batch"]
) -> Float[Tensor, "batch vocab"]:
    return _read_stream(resid[torch.arange(len(resid)), pos], model)


def _lens_at_end(resid: Float[Tensor, "batch pos d_model"], data, model) -> Float[Tensor, "batch"]:
    return _lens_of(_read_at(model, resid, data.pos["END"]), data.answers)


def _lens_at_end_cases(seed: int) -> list[tuple]:
    cases = []
    for i, model in enumerate(_models(seed)):
        for n in (6, 1) if i == 0 else (6,):
            data = random_data(model, n, seed + i)
            name = f"blocks.{model.cfg.n_layers - 1}.hook_resid_{'mid' if i else 'post'}"
            with torch.no_grad():
                _, cache = model.run_with_cache(data.tokens, names_filter=[name])
            cases.append((cache[name], data, model))
    return cases


def _at_role(role: str):
    return lambda resid, data, model: _lens_of(_read_at(model, resid, data.pos[role]), data.answers)


lens_at_end = Exercise(
    number="3.2",
    title="The logit difference at END",
    solution=_lens_at_end,
    cases=_lens_at_end_cases,
    misconceptions=(
        Misconception(
            "padding taken for END",
            "The last position is read, which is padding in all but the longest prompts. Each prompt has its own END.",
            lambda resid, data, model: _lens_of(_read_stream(resid[:, -1], model), data.answers),
        ),
        Misconception(
            "BOS off by one",
            "The position before END is read. `data.pos` counts BOS already: nothing is to be taken off.",
            lambda resid, data, model: _lens_of(_read_at(model, resid, data.pos["END"] - 1), data.answers),
        ),
        Misconception(
            "S2 taken for END",
            "The stream is read at the second mention of S. The answer is predicted from the last token of the prompt.",
            _at_role("S2"),
        ),
        Misconception(
            "IO and S exchanged",
            "All signs are wrong: `data.answers` has IO first and S second, and the difference is IO minus S.",
            lambda resid, data, model: -_lens_at_end(resid, data, model),
        ),
        Misconception(
            "final LayerNorm forgotten",
            "The unembedding is applied to the stream as it is; ln_final comes before it.",
            lambda resid, data, model: _lens_of(
                resid[torch.arange(len(resid)), data.pos["END"]] @ model.W_U + model.b_U, data.answers
            ),
        ),
        Misconception(
            "softmax before the difference",
            "This is a difference of probabilities. The logit difference takes the logits as they are.",
            lambda resid, data, model: _lens_of(_read_at(model, resid, data.pos["END"]).softmax(dim=-1), data.answers),
        ),
        Misconception(
            "mean over prompts",
            "One number came back for the whole batch. Asked for is one per prompt.",
            lambda resid, data, model: _lens_at_end(resid, data, model).mean(),
        ),
        Misconception(
            "bias of the unembedding forgotten",
            "Each prompt is off by how much b_U favours IO over S.",
            lambda resid, data, model: _lens_of(_read_at(model, resid, data.pos["END"]) - model.b_U, data.answers),
        ),
    ),
)


# --- 3.3 ---


def _largest_step(values: Float[Tensor, "place batch"], labels: list[str]) -> str:
    return labels[1:][values.mean(dim=1).diff().argmax()]


def _largest_step_cases(seed: int) -> list[tuple]:
    generator, cases = _generator(seed), []
    for i in range(6):
        layers = 6 + i
        labels = [f"{layer}_{at}" for layer in range(layers) for at in ("pre", "mid")] + ["final_post"]
        values = _normal(generator, len(labels), 2 + 7 * i).cumsum(dim=0)
        values[-3:] -= 8  # the largest change is a loss
        values[1 + 2 * i :] += 4.0
        values[2 + 2 * i : 2 + 2 * i + 2] += 1.5
        own = 12 * torch.ones(values.shape[1], dtype=torch.float64) / (1 - values.shape[1])
        own[0] = 12  # the first prompt has a larger step of its own; the others make up for it in the mean
        values[4:] += own
        cases.append((values, labels))
    return cases


largest_step = Exercise(
    number="3.3",
    title="Which half layer writes the answer",
    solution=_largest_step,
    cases=_largest_step_cases,
    misconceptions=(
        Misconception(
            "the highest place, not the largest step",
            "This is where the lens reads most. Who put it there may have been earlier: look at changes.",
            lambda values, labels: labels[values.mean(dim=1).argmax()],
        ),
        Misconception(
            "the place before the step",
            "The step is found, but named by the place before it. `9_mid` is the place after attention 9 has written.",
            lambda values, labels: labels[values.mean(dim=1).diff().argmax()],
        ),
        Misconception(
            "mean over the wrong axis",
            "The axes are [place, batch], and the mean is to go over prompts.",
            lambda values, labels: labels[1:][values.mean(dim=0).diff().argmax() % (len(labels) - 1)],
        ),
        Misconception(
            "a loss taken for a gain",
            "The largest change in size is one that takes away. Asked for is who *adds* most.",
            lambda values, labels: labels[1:][values.mean(dim=1).diff().abs().argmax()],
        ),
        Misconception(
            "the first prompt only",
            "Only one prompt was looked at. The step is to be the largest on average.",
            lambda values, labels: labels[1:][values[:, 0].diff().argmax()],
        ),
    ),
)


# --- 3.4 ---

_EPS = 1e-5


def _scale(stream: Tensor) -> Float[Tensor, "... 1"]:
    return (stream.var(dim=-1, correction=0, keepdim=True) + _EPS).sqrt()


def _project(stream: Tensor, scale: Tensor, direction: Tensor) -> Float[Tensor, "place batch"]:
    centred = stream - stream.mean(dim=-1, keepdim=True)
    return (centred / scale * direction).sum(dim=-1)


def _hold_the_scale(
    stream: Float[Tensor, "place batch d_model"], direction: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "place batch"]:
    return _project(stream, _scale(stream[-1]), direction)


def _hold_the_scale_cases(seed: int) -> list[tuple]:
    generator, cases = _generator(seed), []
    for places, batch, d_model in ((7, 3, 16), (5, 1, 8), (3, 4, 12), (9, 2, 32), (4, 5, 6)):
        growth = torch.linspace(0.5, 4, places, dtype=torch.float64)[:, None, None]
        prompts = torch.linspace(1, 2, batch, dtype=torch.float64)[:, None]
        stream = growth * prompts * _normal(generator, places, batch, d_model) + _normal(generator, batch, 1)
        cases.append((stream, _normal(generator, batch, d_model)))
    return cases


hold_the_scale = Exercise(
    number="3.4",
    title="Hold the scale",
    solution=_hold_the_scale,
    cases=_hold_the_scale_cases,
    misconceptions=(
        Misconception(
            "scale not held",
            "Each place is divided by its own scale. Take the scale of the last place, for all of them.",
            lambda stream, direction: _project(stream, _scale(stream), direction),
        ),
        Misconception(
            "scale of the first place",
            "The scale is held, but it is that of the first place. The model divides once, at the end.",
            lambda stream, direction: _project(stream, _scale(stream[0]), direction),
        ),
        Misconception(
            "one scale for all prompts",
            "The scale was averaged over prompts. Each prompt has its own.",
            lambda stream, direction: _project(stream, _scale(stream[-1]).mean(), direction),
        ),
        Misconception(
            "no scale at all",
            "The stream is not divided by anything; LayerNorm divides by the scale.",
            lambda stream, direction: _project(stream, torch.ones(()), direction),
        ),
        Misconception(
            "mean not subtracted",
            "LayerNorm subtracts the mean over d_model before it divides. These streams have one.",
            lambda stream, direction: (stream / _scale(stream[-1]) * direction).sum(dim=-1),
        ),
        Misconception(
            "length taken for scale",
            "The stream is divided by its length. LayerNorm's scale is the root of the *mean* square, not of the sum.",
            lambda stream, direction: _project(stream, _scale(stream[-1]) * stream.shape[-1] ** 0.5, direction),
        ),
        Misconception(
            "variance taken for scale",
            "The stream is divided by the variance. The scale is its root.",
            lambda stream, direction: _project(stream, _scale(stream[-1]) ** 2, direction),
        ),
        Misconception(
            "mean over the wrong axis",
            "The mean was taken over the batch. LayerNorm looks at one vector at a time: mean and scale go over d_model.",
            lambda stream, direction: (
                (stream - stream.mean(dim=1, keepdim=True)) / _scale(stream[-1]) * direction
            ).sum(dim=-1),
        ),
    ),
)


# --- 3.5 ---


def _settled(top: Float[Tensor, "place batch"]) -> Int[Tensor, "batch"]:
    """How many places come before the last run of true values, which reaches to the end."""
    return len(top) - top.flip(0).long().cumprod(dim=0).sum(dim=0)


def _is_top(logits: Tensor, answers: Tensor) -> Tensor:
    return logits.argmax(dim=-1) == answers


def _settled_at(logits: Float[Tensor, "place batch vocab"], answers: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
    return _settled(_is_top(logits, answers))


def _settled_at_cases(seed: int) -> list[tuple]:
    generator, cases = _generator(seed), []
    for places, batch, vocab in ((9, 6, 12), (5, 1, 8), (12, 8, 20), (7, 5, 6), (4, 3, 9)):
        logits = _normal(generator, places, batch, vocab)
        answers = torch.randint(vocab, (batch,), generator=generator)
        for prompt in range(batch):
            settles = int(torch.randint(1, places, (1,), generator=generator))
            logits[settles:, prompt, answers[prompt]] += 9  # on top from here on
            logits[: settles - 1, prompt, answers[prompt]] += 9  # and once before, but not in between
            logits[settles - 1, prompt, answers[prompt]] = 0  # below others, but not below all
            logits[settles - 1, prompt, (answers[prompt] + 1) % vocab] = 3
        if batch > 2:
            logits[-1, 0, answers[0]] = -9  # never settles
        cases.append((logits, answers))
    return cases


def _first(top: Tensor) -> Int[Tensor, "batch"]:
    return torch.where(top.any(dim=0), top.long().argmax(dim=0), len(top))


settled_at = Exercise(
    number="3.5",
    title="When it is settled",
    solution=_settled_at,
    cases=_settled_at_cases,
    misconceptions=(
        Misconception(
            "on top once taken for settled",
            "This is the first place at which the answer is on top. It may lose the lead again: look at all later places.",
            lambda logits, answers: _first(_is_top(logits, answers)),
        ),
        Misconception(
            "the last place before it settles",
            "All are one too early: this is the last place at which the answer is *not* on top.",
            lambda logits, answers: _settled_at(logits, answers) - 1,
        ),
        Misconception(
            "places counted, not found",
            "This is how many places have the answer on top, wherever they are.",
            lambda logits, answers: _is_top(logits, answers).sum(dim=0),
        ),
        Misconception(
            "counted from the end",
            "This is for how many places the answer stays on top. Asked for is where that begins.",
            lambda logits, answers: len(logits) - _settled_at(logits, answers),
        ),
        Misconception(
            "never settled taken for settled at the end",
            "Where the answer is not on top at the last place it never settles: the number of places is asked for.",
            lambda logits, answers: _settled_at(logits, answers).clamp(max=len(logits) - 1),
        ),
        Misconception(
            "the least likely token looked for",
            "The answer is compared with the token of the smallest logit.",
            lambda logits, answers: _settled(logits.argmin(dim=-1) == answers),
        ),
    ),
)


# --- 3.6 ---


def _fold_layer_norm(
    weight: Float[Tensor, "d_model"],
    bias: Float[Tensor, "d_model"],
    W_U: Float[Tensor, "d_model vocab"],
    b_U: Float[Tensor, "vocab"],
) -> tuple[Float[Tensor, "d_model vocab"], Float[Tensor, "vocab"]]:
    return weight[:, None] * W_U, bias @ W_U + b_U


def _fold_layer_norm_cases(seed: int) -> list[tuple]:
    generator = _generator(seed)
    shapes = ((8, 20), (4, 4), (16, 5), (6, 6), (12, 30))
    return [
        (1 + 0.5 * _normal(generator, d), _normal(generator, d), _normal(generator, d, v), _normal(generator, v))
        for d, v in shapes
    ]


fold_layer_norm = Exercise(
    number="3.6",
    title="Fold the final LayerNorm",
    solution=_fold_layer_norm,
    cases=_fold_layer_norm_cases,
    misconceptions=(
        Misconception(
            "bias of LayerNorm lost",
            "The new bias is the old one. LayerNorm's bias goes through the unembedding, too, and must end up there.",
            lambda weight, bias, W_U, b_U: (weight[:, None] * W_U, b_U),
        ),
        Misconception(
            "bias of the unembedding lost",
            "The new bias has LayerNorm's part alone; b_U was there before, and stays.",
            lambda weight, bias, W_U, b_U: (weight[:, None] * W_U, bias @ W_U),
        ),
        Misconception(
            "bias put through the folded weight",
            "LayerNorm adds its bias after it has multiplied by its weight: the bias does not meet that weight.",
            lambda weight, bias, W_U, b_U: (weight[:, None] * W_U, bias @ (weight[:, None] * W_U) + b_U),
        ),
        Misconception(
            "divided by the weight",
            "LayerNorm multiplies by its weight; what takes its place must multiply by it as well.",
            lambda weight, bias, W_U, b_U: (W_U / weight[:, None], bias @ W_U + b_U),
        ),
        Misconception(
            "weight left out",
            "Only the bias was folded. W_U has to do the multiplication with LayerNorm's weight.",
            lambda weight, bias, W_U, b_U: (W_U, bias @ W_U + b_U),
        ),
    ),
)
