"""Checks of chapter 4, direct logit attribution; those about taking a part
out are in `removal`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.checks.inputs import normal, seeded

__all__ = ["add_up", "heads_at_end", "heads_that_count", "from_roles"]


def _centred(x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return x - x.mean(dim=-1, keepdim=True)


def _normed(x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)


def _dot(
    x: Float[Tensor, "batch d_model"], direction: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch"]:
    return (x * direction).sum(dim=-1)


# --- 4.1 ---


def _written(
    cache, data, model, embeddings: tuple[str, ...], pos: Int[Tensor, "batch"]
) -> Float[Tensor, "part batch d"]:
    layers = [
        f"blocks.{i}.hook_{half}_out"
        for i in range(model.cfg.n_layers)
        for half in ("attn", "mlp")
    ]
    return torch.stack([_at(cache[name], pos) for name in (*embeddings, *layers)])


def _add_up(
    cache,
    data,
    model,
    embeddings=("hook_embed", "hook_pos_embed"),
    weight=True,
    ln_bias=True,
    bias=True,
    own_scale=False,
    pos=None,
    softmax=False,
    norm=True,
):
    pos = data.pos["END"] if pos is None else pos
    parts = _written(cache, data, model, embeddings, pos)
    if own_scale:
        parts = _normed(parts)
    elif norm:
        parts = _centred(parts) / _at(cache["ln_final.hook_scale"], pos)
    total = parts.sum(dim=0) * (model.ln_final.w if weight else 1)
    logits = (total + (model.ln_final.b if ln_bias else 0)) @ model.W_U + (
        model.b_U if bias else 0
    )
    io, s = (
        (logits.softmax(dim=-1) if softmax else logits)
        .gather(1, data.answers)
        .unbind(dim=1)
    )
    return io - s


def _add_up_cases(seed: int) -> list[tuple]:
    cases = []
    models = random_model(seed), random_model(seed + 1, processing=())
    for i, (model, n) in enumerate(
        [(models[0], 5), (models[1], 5), (models[0], 1), (models[1], 3)]
    ):
        data = random_data(model, n, seed + i)
        layers = [
            f"blocks.{j}.hook_{half}_out"
            for j in range(model.cfg.n_layers)
            for half in ("attn", "mlp")
        ]
        names = ["hook_embed", "hook_pos_embed", *layers, "ln_final.hook_scale"]
        with torch.no_grad():
            _, cache = model.run_with_cache(data.tokens, names_filter=names)
        cases.append(
            (ActivationCache({name: cache[name] for name in names}, model), data, model)
        )  # without aliases
    return cases


def _adding_up(**changes):
    return lambda cache, data, model: _add_up(cache, data, model, **changes)


add_up = Exercise(
    number="4.1",
    title="It all adds up",
    solution=_adding_up(),
    cases=_add_up_cases,
    misconceptions=(
        Misconception(
            "bias forgotten",
            "All that was written is there, but the end of the model has biases that "
            "no part wrote: in ln_final, in the unembedding.",
            _adding_up(ln_bias=False, bias=False),
        ),
        Misconception(
            "bias of the unembedding forgotten",
            "The unembedding has a bias, b_U. Folded weights carry that of the final "
            "LayerNorm in it.",
            _adding_up(bias=False),
        ),
        Misconception(
            "bias of the final LayerNorm forgotten",
            "Right with folded weights. In raw ones the final LayerNorm adds a bias "
            "of its own after its weight.",
            _adding_up(ln_bias=False),
        ),
        Misconception(
            "weight of the final LayerNorm forgotten",
            "Right with folded weights. In raw ones the final LayerNorm multiplies by "
            "a weight after dividing.",
            _adding_up(weight=False),
        ),
        Misconception(
            "final LayerNorm forgotten",
            "The parts are read as they were written. Between the stream and the "
            "unembedding stands ln_final.",
            _adding_up(norm=False, weight=False, ln_bias=False),
        ),
        Misconception(
            "scale not held",
            "Each part was divided by its own size. All of them are divided by the "
            "scale of the stream at END, which is in the cache.",
            _adding_up(own_scale=True),
        ),
        Misconception(
            "position embedding forgotten",
            "The sum begins with two embeddings: that of the token and that of "
            "the position.",
            _adding_up(embeddings=("hook_embed",)),
        ),
        Misconception(
            "embeddings forgotten",
            "The layers add to something: the stream does not begin at zero.",
            _adding_up(embeddings=()),
        ),
        Misconception(
            "padding taken for END",
            "The last position is read, which is padding in all but the longest "
            "prompts. Each prompt has its own END.",
            lambda cache, data, model: _add_up(
                cache,
                data,
                model,
                pos=torch.full_like(data.pos["END"], data.tokens.shape[1] - 1),
            ),
        ),
        Misconception(
            "softmax before the difference",
            "This is a difference of probabilities. The parts add up to logits.",
            _adding_up(softmax=True),
        ),
        Misconception(
            "IO and S exchanged",
            "The opposite sign: IO is the first column of the answers.",
            lambda cache, data, model: -_add_up(cache, data, model),
        ),
    ),
)


# --- 4.2 ---


def _heads_at(z: Tensor, W_O: Tensor, direction: Tensor) -> Float[Tensor, "batch head"]:
    return torch.einsum("bhd,hdm,bm->bh", z, W_O, direction)


def _at(
    values: Float[Tensor, "batch pos ..."], pos: Int[Tensor, "batch"]
) -> Float[Tensor, "batch ..."]:
    return values[torch.arange(len(values)), pos]


def _heads_at_end(
    z: Float[Tensor, "batch pos head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    direction: Float[Tensor, "batch d_model"],
    end: Int[Tensor, "batch"],
) -> Float[Tensor, "batch head"]:
    return _heads_at(_at(z, end), W_O, direction)


def _heads_at_end_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    return [
        (
            normal(generator, batch, pos, head, 5),
            normal(generator, head, 5, 20),
            normal(generator, batch, 20),
            torch.randint(3, pos - 1, (batch,), generator=generator),
        )
        for batch, pos, head in ((4, 9, 3), (1, 8, 4), (5, 7, 2), (3, 10, 4))
    ]


heads_at_end = Exercise(
    number="4.2",
    title="By head",
    solution=_heads_at_end,
    cases=_heads_at_end_cases,
    misconceptions=(
        Misconception(
            "padding taken for END",
            "The last position is read, which is padding in all but the longest "
            "prompts. `end` says where each one ends.",
            lambda z, W_O, direction, end: _heads_at(z[:, -1], W_O, direction),
        ),
        Misconception(
            "END off by one",
            "The position before END is read. The positions in `end` count from 0 and "
            "count BOS: take nothing off.",
            lambda z, W_O, direction, end: _heads_at(_at(z, end - 1), W_O, direction),
        ),
        Misconception(
            "summed over positions",
            "The logits at END are read from the stream at END. What a head wrote "
            "elsewhere is not in it.",
            lambda z, W_O, direction, end: _heads_at(z.sum(dim=1), W_O, direction),
        ),
        Misconception(
            "summed over heads",
            "This is what the heads of the layer write together. Keep their axis: one "
            "number per head.",
            lambda z, W_O, direction, end: _heads_at_end(z, W_O, direction, end).sum(
                dim=1
            ),
        ),
        Misconception(
            "mean over prompts",
            "One row for each prompt was asked for; the mean over prompts comes later.",
            lambda z, W_O, direction, end: _heads_at_end(z, W_O, direction, end).mean(
                dim=0
            ),
        ),
        Misconception(
            "one direction for all prompts",
            "The answers differ from prompt to prompt, and so does the direction: the "
            "mean of the directions is none of them.",
            lambda z, W_O, direction, end: _heads_at_end(
                z, W_O, direction.mean(dim=0).expand_as(direction), end
            ),
        ),
        Misconception(
            "one head's W_O for all heads",
            "Each head writes through a W_O of its own: the first axis of W_O belongs "
            "to the head axis of z.",
            lambda z, W_O, direction, end: _heads_at_end(
                z, W_O[:1].expand_as(W_O), direction, end
            ),
        ),
    ),
)


# --- 4.3 ---


def _mean_and_error(values: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    return values.mean(dim=dim), values.std(dim=dim) / values.shape[dim] ** 0.5


def _counted(
    mean: Tensor, error: Tensor, total: float, k: float = 4, share: float = 0.02
) -> list[tuple[int, int]]:
    found = (
        ((mean.abs() >= k * error) & (mean.abs() >= share * abs(total)))
        .nonzero()
        .tolist()
    )
    return sorted(map(tuple, found), key=lambda head: -mean[head].abs())


def _heads_that_count(
    values: Float[Tensor, "batch layer head"], total: float
) -> list[tuple[int, int]]:
    return _counted(*_mean_and_error(values), total)


# of each head: its mean in shares of the total, and how many errors that is
_MEASURED = (
    (0.6, 30),
    (-0.4, 25),
    (0.2, 4.05),  # four errors, just
    (-0.3, 4.05),
    (
        0.25,
        3.95,
    ),  # not four, also not if the deviation is divided by n instead of n - 1
    (-0.35, 3.95),
    (0.28, 3.4),  # three, but not four
    (0.45, 2.5),
    (-0.5, 1.5),
    (0.0205, 9),  # 2 %, just
    (-0.0195, 12),
    (0.01, 40),
)


def _heads_that_count_cases(seed: int) -> list[tuple]:
    """Every combination of size, sign and error, shuffled over the heads; one
    whole effect is negative."""
    generator = seeded(seed)
    cases = []
    for batch, layers, heads, total in (
        (12, 3, 5, 4.0),
        (16, 4, 4, -2.0),
        (9, 2, 7, 3.0),
    ):
        places = torch.randperm(layers * heads, generator=generator)[
            : len(_MEASURED)
        ].tolist()
        noise = normal(generator, batch, layers * heads)
        noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
        values = 0.001 * noise
        for place, (share, errors) in zip(places, _MEASURED, strict=True):
            mean = share * abs(total)
            values[:, place] = mean + abs(mean) / errors * batch**0.5 * noise[:, place]
        cases.append((values.view(batch, layers, heads), total))
    return cases


heads_that_count = Exercise(
    number="4.3",
    title="Which heads count",
    solution=_heads_that_count,
    cases=_heads_that_count_cases,
    misconceptions=(
        Misconception(
            "deviation taken for the error",
            "Heads that work on most prompts are thrown out. The deviation says how "
            "prompts differ; the mean is known better than that, by the root of "
            "their number.",
            lambda values, total: _counted(
                values.mean(dim=0), values.std(dim=0), total
            ),
        ),
        Misconception(
            "deviation divided by n",
            "The deviation of a *sample* divides by n - 1: with `correction=0` every "
            "error is a little too small.",
            lambda values, total: _counted(
                values.mean(dim=0),
                values.std(dim=0, correction=0) / len(values) ** 0.5,
                total,
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "The mean is taken over heads, and the pairs are (prompt, layer). Prompts "
            "are the first axis.",
            lambda values, total: _counted(*_mean_and_error(values, 2), total),
        ),
        Misconception(
            "heads that take away forgotten",
            "Only heads with a positive mean are listed. A head that works against "
            "the answer is as far from zero.",
            lambda values, total: [
                h for h in _heads_that_count(values, total) if values.mean(dim=0)[h] > 0
            ],
        ),
        Misconception(
            "error not looked at",
            "Heads are listed whose mean is large by accident: a few prompts pull it.",
            lambda values, total: _counted(*_mean_and_error(values), total, k=0),
        ),
        Misconception(
            "another number of errors",
            "Three errors are not four. The rule was fixed before the look, and it is "
            "the same in all chapters.",
            lambda values, total: _counted(*_mean_and_error(values), total, k=3),
        ),
        Misconception(
            "size not looked at",
            "Heads are listed whose mean is surely not zero, but next to nothing.",
            lambda values, total: _counted(*_mean_and_error(values), 0),
        ),
        Misconception(
            "weakest first",
            "The right heads in the wrong order: the largest first.",
            lambda values, total: _heads_that_count(values, total)[::-1],
        ),
        Misconception(
            "sorted by sign",
            "The right heads, but those that take away are at the end. Sort by "
            "distance from zero.",
            lambda values, total: sorted(
                _heads_that_count(values, total), key=lambda h: -values.mean(dim=0)[h]
            ),
        ),
        Misconception(
            "layer and head exchanged",
            "A head is written (layer, head), in the order of the axes.",
            lambda values, total: [
                (head, layer) for layer, head in _heads_that_count(values, total)
            ],
        ),
    ),
)


# --- 4.4 ---

_SOURCES = ("IO", "S1", "S2")


def _from_roles(
    pattern: Float[Tensor, "batch dest src"],
    v: Float[Tensor, "batch src d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    direction: Float[Tensor, "batch d_model"],
    pos: dict[str, Int[Tensor, "batch"]],
    roles: tuple[str, ...] = _SOURCES,
) -> Float[Tensor, "batch role"]:
    values = torch.einsum("bsd,dm,bm->bs", v, W_O, direction)
    return _pick(_at(pattern, pos["END"]) * values, pos, roles)


def _pick(
    by_pos: Float[Tensor, "batch src"], pos: dict, roles: tuple[str, ...] = _SOURCES
) -> Float[Tensor, "batch role"]:
    return torch.stack([_at(by_pos, pos[role]) for role in roles], dim=1)


def _from_roles_cases(seed: int) -> list[tuple]:
    generator = seeded(seed)
    cases = []
    for batch, length in ((4, 11), (1, 10), (6, 12), (3, 10)):
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = 2 * normal(generator, batch, length, length).masked_fill(
            future, -torch.inf
        )
        first = torch.stack(
            [torch.randperm(3, generator=generator)[:2] + 2 for _ in range(batch)]
        )
        end = torch.randint(8, length - 1, (batch,), generator=generator)
        pos = {
            "IO": first[:, 0],
            "S1": first[:, 1],
            "S1+1": first[:, 1] + 1,
            "S2": end - 2,
            "END": end,
        }
        shapes = (batch, length, 5), (5, 16), (batch, 16)
        cases.append(
            (
                scores.softmax(dim=-1),
                *(normal(generator, *shape) for shape in shapes),
                pos,
            )
        )
    return cases


def _shifted(pos: dict, roles: tuple[str, ...]) -> dict:
    return {role: value - int(role in roles) for role, value in pos.items()}


from_roles = Exercise(
    number="4.4",
    title="Where it comes from",
    solution=lambda pattern, v, W_O, direction, pos: _from_roles(
        pattern, v, W_O, direction, pos
    ),
    cases=_from_roles_cases,
    misconceptions=(
        Misconception(
            "S1 taken for S2",
            "The columns for the two mentions of S are exchanged. S1 is the "
            "first mention.",
            lambda pattern, v, W_O, direction, pos: _from_roles(
                pattern, v, W_O, direction, pos, ("IO", "S2", "S1")
            ),
        ),
        Misconception(
            "source and destination exchanged",
            "A row of the pattern is where one position looks. You took a column: who "
            "looks at END (nobody before it).",
            lambda pattern, v, W_O, direction, pos: _from_roles(
                pattern.mT, v, W_O, direction, pos
            ),
        ),
        Misconception(
            "attention alone",
            "These are attention probabilities. How much is looked at a position is "
            "one factor, what is moved from there the other.",
            lambda pattern, v, W_O, direction, pos: _pick(
                _at(pattern, pos["END"]), pos
            ),
        ),
        Misconception(
            "value alone",
            "This is what would be written if all attention went to that position. "
            "Weigh it by the attention from END.",
            lambda pattern, v, W_O, direction, pos: _pick(
                torch.einsum("bsd,dm,bm->bs", v, W_O, direction), pos
            ),
        ),
        Misconception(
            "padding taken for END",
            "The attention is that of the last position, which is padding in all but "
            "the longest prompts.",
            lambda pattern, v, W_O, direction, pos: _from_roles(
                pattern,
                v,
                W_O,
                direction,
                pos | {"END": torch.full_like(pos["END"], pattern.shape[1] - 1)},
            ),
        ),
        Misconception(
            "END off by one",
            "The attention is that of the position before END.",
            lambda pattern, v, W_O, direction, pos: _from_roles(
                pattern, v, W_O, direction, _shifted(pos, ("END",))
            ),
        ),
        Misconception(
            "BOS off by one",
            "The sources are one position too early, and each weight is on the token "
            "before the name. `pos` counts BOS already.",
            lambda pattern, v, W_O, direction, pos: _from_roles(
                pattern, v, W_O, direction, _shifted(pos, _SOURCES)
            ),
        ),
    ),
)
