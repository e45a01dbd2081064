"""Checks of chapter 3, the logit lens; those about the final LayerNorm itself are in
`scale`, that of what a lens reads in `readings`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import (
    Exercise,
    Misconception,
    random_data,
    random_model,
    random_of,
)
from ioi_course.checks.inputs import normal, seeded
from ioi_course.checks.readings import what_is_read
from ioi_course.lens import final_norm, stream_places

__all__ = [
    "lens_of_prompt",
    "lens_at_end",
    "largest_step",
    "what_is_read",
    "settled_at",
]


def _models(seed: int) -> list:
    """Models with processed weights and with raw ones, in which the final LayerNorm
    has a weight and a bias."""
    return [
        random_model(seed),
        random_model(seed + 1, processing=()),
        random_model(seed + 2, n_layers=2),
    ]


# --- 3.1 ---


def _read_stream(
    resid: Float[Tensor, "batch d_model"], model
) -> Float[Tensor, "batch vocab"]:
    return final_norm(model, resid) @ model.W_U + model.b_U


def _stream_of(
    model, tokens: Int[Tensor, "1 pos"], pos: int = -1
) -> Float[Tensor, "place d_model"]:
    places = list(stream_places(model).values())
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=places)
    return torch.stack([cache[name][0, pos] for name in places])


def _io_minus_s(
    logits: Float[Tensor, "place vocab"], answers: Int[Tensor, "2"]
) -> Float[Tensor, "place"]:
    return logits[:, answers[0]] - logits[:, answers[1]]


def _lens_of_prompt(
    model, tokens: Int[Tensor, "1 pos"], answers: Int[Tensor, "2"]
) -> Float[Tensor, "place"]:
    return _io_minus_s(_read_stream(_stream_of(model, tokens), model), answers)


def _lens_of_prompt_cases(seed: int) -> list[tuple]:
    models = [*_models(seed), random_of("llama", seed, processing=())]
    data = [random_data(model, 1, seed + i) for i, model in enumerate(models)]
    return [
        (model, one.tokens, one.answers[0])
        for model, one in zip(models, data, strict=True)
    ]


def _without_weight_and_bias(resid: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(resid, resid.shape[-1:], eps=1e-5)


def _without_weight(resid: Tensor, model) -> Tensor:
    """Scale, and for LayerNorm the mean; nothing else."""
    if not model.ln_final.uses_rms_norm:
        return _without_weight_and_bias(resid)
    return resid / (resid.pow(2).mean(dim=-1, keepdim=True) + model.cfg.eps).sqrt()


def _through_block(model, tokens, answers) -> Tensor:
    normed = torch.stack(
        [model.blocks[-1].ln2(x[None, None])[0, 0] for x in _stream_of(model, tokens)]
    )
    return _io_minus_s(normed @ model.W_U + model.b_U, answers)


def _only_what_was_added(model, tokens, answers) -> Tensor:
    stream = _stream_of(model, tokens)
    added = torch.cat([stream[:1], stream.diff(dim=0)])
    return _io_minus_s(_read_stream(added, model), answers)


lens_of_prompt = Exercise(
    number="3.1",
    title="The lens over one prompt",
    solution=_lens_of_prompt,
    cases=_lens_of_prompt_cases,
    misconceptions=(
        Misconception(
            "final normalisation forgotten",
            "The unembedding is applied to the stream as it is. What does the model "
            "do to the stream before that?",
            lambda model, tokens, answers: _io_minus_s(
                _stream_of(model, tokens) @ model.W_U + model.b_U, answers
            ),
        ),
        Misconception(
            "final LayerNorm without its weight and bias",
            "Mean and scale are right, but on raw weights ln_final multiplies by a "
            "weight and adds a bias, too.",
            lambda model, tokens, answers: _io_minus_s(
                _without_weight(_stream_of(model, tokens), model) @ model.W_U
                + model.b_U,
                answers,
            ),
        ),
        Misconception(
            "bias of the unembedding forgotten",
            "Every place is off by the same number. The unembedding has a weight W_U "
            "and something beside it.",
            lambda model, tokens, answers: _io_minus_s(
                final_norm(model, _stream_of(model, tokens)) @ model.W_U, answers
            ),
        ),
        Misconception(
            "LayerNorm of a block taken for the final one",
            "The normalisation inside a block is applied. After the last block comes "
            "one of its own, ln_final.",
            _through_block,
        ),
        Misconception(
            "what a half layer added, not the stream",
            "This reads what each half layer wrote. The lens reads the stream, in "
            "which everything before is still there.",
            _only_what_was_added,
        ),
        Misconception(
            "the first position",
            "The stream is read at BOS. The answer is predicted from the last token "
            "of the prompt.",
            lambda model, tokens, answers: _io_minus_s(
                _read_stream(_stream_of(model, tokens, 0), model), answers
            ),
        ),
        Misconception(
            "IO and S exchanged",
            "All signs are wrong: `answers` has IO first and S second, and the "
            "difference is IO minus S.",
            lambda model, tokens, answers: -_lens_of_prompt(model, tokens, answers),
        ),
        Misconception(
            "only whole layers",
            "There are fewer places than expected: between the two halves of each "
            "layer is one more, hook_resid_mid.",
            lambda model, tokens, answers: _lens_of_prompt(model, tokens, answers)[::2],
        ),
        Misconception(
            "softmax before the difference",
            "This is a difference of probabilities. The logit difference takes the "
            "logits as they are.",
            lambda model, tokens, answers: _io_minus_s(
                _read_stream(_stream_of(model, tokens), model).softmax(dim=-1), answers
            ),
        ),
    ),
)


# --- 3.2 ---


def _lens_of(
    logits: Float[Tensor, "batch vocab"], answers: Int[Tensor, "batch 2"]
) -> Float[Tensor, "batch"]:
    io, s = logits.gather(1, answers).unbind(dim=1)
    return io - s


def _read_at(
    model, resid: Float[Tensor, "batch pos d_model"], pos: Int[Tensor, "batch"]
) -> Float[Tensor, "batch vocab"]:
    return _read_stream(resid[torch.arange(len(resid)), pos], model)


def _lens_at_end(
    resid: Float[Tensor, "batch pos d_model"], data, model
) -> Float[Tensor, "batch"]:
    return _lens_of(_read_at(model, resid, data.pos["END"]), data.answers)


def _lens_at_end_cases(seed: int) -> list[tuple]:
    cases = []
    for i, model in enumerate(_models(seed)):
        for n in (6, 1) if i == 0 else (6,):
            data = random_data(model, n, seed + i)
            name = (
                f"blocks.{model.cfg.n_layers - 1}.hook_resid_{'mid' if i else 'post'}"
            )
            with torch.no_grad():
                _, cache = model.run_with_cache(data.tokens, names_filter=[name])
            cases.append((cache[name], data, model))
    return cases


def _at_role(role: str):
    return lambda resid, data, model: _lens_of(
        _read_at(model, resid, data.pos[role]), data.answers
    )


lens_at_end = Exercise(
    number="3.2",
    title="The logit difference at END",
    solution=_lens_at_end,
    cases=_lens_at_end_cases,
    misconceptions=(
        Misconception(
            "padding taken for END",
            "The last position is read, which is padding in all but the longest "
            "prompts. Each prompt has its own END.",
            lambda resid, data, model: _lens_of(
                _read_stream(resid[:, -1], model), data.answers
            ),
        ),
        Misconception(
            "BOS off by one",
            "The position before END is read. `data.pos` counts BOS already: nothing "
            "is to be taken off.",
            lambda resid, data, model: _lens_of(
                _read_at(model, resid, data.pos["END"] - 1), data.answers
            ),
        ),
        Misconception(
            "S2 taken for END",
            "The stream is read at the second mention of S. The answer is predicted "
            "from the last token of the prompt.",
            _at_role("S2"),
        ),
        Misconception(
            "IO and S exchanged",
            "All signs are wrong: `data.answers` has IO first and S second, and the "
            "difference is IO minus S.",
            lambda resid, data, model: -_lens_at_end(resid, data, model),
        ),
        Misconception(
            "final LayerNorm forgotten",
            "The unembedding is applied to the stream as it is; ln_final comes "
            "before it.",
            lambda resid, data, model: _lens_of(
                resid[torch.arange(len(resid)), data.pos["END"]] @ model.W_U
                + model.b_U,
                data.answers,
            ),
        ),
        Misconception(
            "softmax before the difference",
            "This is a difference of probabilities. The logit difference takes the "
            "logits as they are.",
            lambda resid, data, model: _lens_of(
                _read_at(model, resid, data.pos["END"]).softmax(dim=-1), data.answers
            ),
        ),
        Misconception(
            "mean over prompts",
            "One number came back for the whole batch. Asked for is one per prompt.",
            lambda resid, data, model: _lens_at_end(resid, data, model).mean(),
        ),
        Misconception(
            "bias of the unembedding forgotten",
            "Each prompt is off by how much b_U favours IO over S.",
            lambda resid, data, model: _lens_of(
                _read_at(model, resid, data.pos["END"]) - model.b_U, data.answers
            ),
        ),
    ),
)


# --- 3.3 ---


def _largest_step(values: Float[Tensor, "place batch"], labels: list[str]) -> str:
    return labels[1:][values.mean(dim=1).diff().argmax()]


def _largest_step_cases(seed: int) -> list[tuple]:
    generator, cases = seeded(seed), []
    for i in range(6):
        layers = 6 + i
        labels = [
            f"{layer}_{at}" for layer in range(layers) for at in ("pre", "mid")
        ] + ["final_post"]
        values = normal(generator, len(labels), 2 + 7 * i).cumsum(dim=0)
        values[-3:] -= 8  # the largest change is a loss
        values[1 + 2 * i :] += 4.0
        values[2 + 2 * i : 2 + 2 * i + 2] += 1.5
        own = (
            12
            * torch.ones(values.shape[1], dtype=torch.float64)
            / (1 - values.shape[1])
        )
        # the first prompt has a larger step of its own; the others make up for it in
        # the mean
        own[0] = 12
        values[4:] += own
        # most prompts step up a little here and a few lose much: the largest step of
        # the median
        if i > 1:
            most = torch.full((values.shape[1],), 9.0, dtype=torch.float64)
            few = values.shape[1] // 4
            most[-few:] = -9.0 * (values.shape[1] - few) / few
            values[6:] += most
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
            "This is where the lens reads most. Who put it there may have been "
            "earlier: look at changes.",
            lambda values, labels: labels[values.mean(dim=1).argmax()],
        ),
        Misconception(
            "the place before the step",
            "The step is found, but named by the place before it. `9_mid` is the "
            "place after attention 9 has written.",
            lambda values, labels: labels[values.mean(dim=1).diff().argmax()],
        ),
        Misconception(
            "mean over the wrong axis",
            "The axes are [place, batch], and the mean is to go over prompts.",
            lambda values, labels: labels[1:][
                values.mean(dim=0).diff().argmax() % (len(labels) - 1)
            ],
        ),
        Misconception(
            "a loss taken for a gain",
            "The largest change in size is one that takes away. Asked for is who "
            "*adds* most.",
            lambda values, labels: labels[1:][values.mean(dim=1).diff().abs().argmax()],
        ),
        Misconception(
            "the median taken for the mean",
            "The middle prompt is looked at. A few prompts that lose much count in "
            "the mean, and it is asked for.",
            lambda values, labels: labels[1:][
                values.median(dim=1).values.diff().argmax()
            ],
        ),
        Misconception(
            "the first prompt only",
            "Only one prompt was looked at. The step is to be the largest on average.",
            lambda values, labels: labels[1:][values[:, 0].diff().argmax()],
        ),
    ),
)


# --- 3.6 ---


def _settled(top: Float[Tensor, "place batch"]) -> Int[Tensor, "batch"]:
    """How many places come before the last run of true values,
    which reaches to the end."""
    return len(top) - top.flip(0).long().cumprod(dim=0).sum(dim=0)


def _is_top(logits: Tensor, answers: Tensor) -> Tensor:
    return logits.argmax(dim=-1) == answers


def _settled_at(
    logits: Float[Tensor, "place batch vocab"], answers: Int[Tensor, "batch"]
) -> Int[Tensor, "batch"]:
    return _settled(_is_top(logits, answers))


def _settled_at_cases(seed: int) -> list[tuple]:
    generator, cases = seeded(seed), []
    for places, batch, vocab in (
        (9, 6, 12),
        (5, 1, 8),
        (12, 8, 20),
        (7, 5, 6),
        (4, 3, 9),
    ):
        logits = normal(generator, places, batch, vocab)
        answers = torch.randint(vocab, (batch,), generator=generator)
        for prompt in range(batch):
            settles = int(torch.randint(1, places, (1,), generator=generator))
            logits[settles:, prompt, answers[prompt]] += 9  # on top from here on
            # and once before, but not in between
            logits[: settles - 1, prompt, answers[prompt]] += 9
            # below others, but not below all
            logits[settles - 1, prompt, answers[prompt]] = 0
            logits[settles - 1, prompt, (answers[prompt] + 1) % vocab] = 3
        if batch > 2:
            logits[-1, 0, answers[0]] = -9  # never settles
        cases.append((logits, answers))
    return cases


def _first(top: Tensor) -> Int[Tensor, "batch"]:
    return torch.where(top.any(dim=0), top.long().argmax(dim=0), len(top))


settled_at = Exercise(
    number="3.6",
    title="When it is settled",
    solution=_settled_at,
    cases=_settled_at_cases,
    misconceptions=(
        Misconception(
            "on top once taken for settled",
            "This is the first place at which the answer is on top. It may lose the "
            "lead again: look at all later places.",
            lambda logits, answers: _first(_is_top(logits, answers)),
        ),
        Misconception(
            "the last place before it settles",
            "All are one too early: this is the last place at which the answer is "
            "*not* on top.",
            lambda logits, answers: _settled_at(logits, answers) - 1,
        ),
        Misconception(
            "places counted, not found",
            "This is how many places have the answer on top, wherever they are.",
            lambda logits, answers: _is_top(logits, answers).sum(dim=0),
        ),
        Misconception(
            "counted from the end",
            "This is for how many places the answer stays on top. Asked for is where "
            "that begins.",
            lambda logits, answers: len(logits) - _settled_at(logits, answers),
        ),
        Misconception(
            "never settled taken for settled at the end",
            "Where the answer is not on top at the last place it never settles: the "
            "number of places is asked for.",
            lambda logits, answers: _settled_at(logits, answers).clamp(
                max=len(logits) - 1
            ),
        ),
        Misconception(
            "the least likely token looked for",
            "The answer is compared with the token of the smallest logit.",
            lambda logits, answers: _settled(logits.argmin(dim=-1) == answers),
        ),
    ),
)
