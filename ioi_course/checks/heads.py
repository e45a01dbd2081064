"""The checks of chapter 8: scores of heads, loss on repeated tokens, composition and
knock-outs; that of the sequences is in `sequences`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_model
from ioi_course.checks.sequences import separating_tokens
from ioi_course.heads import pattern_scores, repeated_tokens

__all__ = [
    "separating_tokens",
    "induction_score",
    "loss_saved",
    "induction_targets",
    "k_composition",
    "induction_without",
]


def _patterns(sizes: list[tuple[int, int, int]], seed: int) -> list[tuple[Tensor, int]]:
    """Random causal attention patterns with BOS, and their n, for
    each (batch, heads, n)."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for batch, heads, n in sizes:
        scores = 2 * torch.randn(
            batch, heads, 2 * n + 1, 2 * n + 1, generator=g, dtype=torch.float64
        )
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        made.append((scores.masked_fill(future, -torch.inf).softmax(-1), n))
    return made


# n = 2 has the shortest diagonals
_SIZES = [(1, 1, 3), (2, 4, 5), (4, 4, 4), (3, 2, 6), (5, 3, 2)]


def _steps_back(pattern: Tensor, n: int, steps: int) -> Tensor:
    """What the second copy reads that many positions before
    itself: [batch, head, n]."""
    return pattern.diagonal(-steps, -2, -1)[..., 1 + n - steps :]


def _induction(
    pattern: Float[Tensor, "batch head dest src"], n: int
) -> Float[Tensor, "head"]:
    return _steps_back(pattern, n, n - 1).mean((0, 2))


induction_score = Exercise(
    number="8.2",
    title="Induction score",
    solution=_induction,
    cases=lambda seed: _patterns(_SIZES, seed),
    misconceptions=(
        Misconception(
            "offset n",
            "n steps back is the first copy of the token itself: this is the "
            "duplicate-token score. Where is the token that came after it?",
            lambda pattern, n: _steps_back(pattern, n, n).mean((0, 2)),
        ),
        Misconception(
            "offset n + 1",
            "n + 1 steps back is the token before the first copy. What came after it "
            "is nearer, not farther.",
            lambda pattern, n: _steps_back(pattern, n, n + 1).mean((0, 2)),
        ),
        Misconception(
            "first copy not excluded",
            "You average the whole diagonal. Its first entries belong to destinations "
            "where nothing has been repeated yet, and one of them reads BOS.",
            lambda pattern, n: pattern.diagonal(-(n - 1), -2, -1).mean((0, 2)),
        ),
        Misconception(
            "BOS off by one",
            "Position n is the last token of the first copy: with BOS in front the "
            "second copy begins at n + 1.",
            lambda pattern, n: pattern.diagonal(-(n - 1), -2, -1)[..., 1:].mean((0, 2)),
        ),
        Misconception(
            "query and key swapped",
            "You read above the main diagonal, where no head can look: rows are "
            "destinations, columns sources.",
            lambda pattern, n: pattern.diagonal(n - 1, -2, -1)[..., 2:].mean((0, 2)),
        ),
        Misconception(
            "mean over all positions",
            "You divide by all 2n + 1 positions, but only the n of the second copy "
            "have something to look back to.",
            lambda pattern, n: (
                _steps_back(pattern, n, n - 1).sum(-1).mean(0) / (2 * n + 1)
            ),
        ),
        Misconception(
            "mean over the wrong axis",
            "A head is what should be left. You averaged the heads and kept the batch.",
            lambda pattern, n: _steps_back(pattern, n, n - 1).mean((1, 2)),
        ),
    ),
)


def _losses(logits: Tensor, tokens: Tensor) -> Tensor:
    return -logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]


def _saved(losses: Tensor, first: slice, second: slice) -> Tensor:
    return losses[:, first].mean(1) - losses[:, second].mean(1)


def _half(tokens: Tensor) -> int:
    return (tokens.shape[1] - 1) // 2


def _loss_saved(
    logits: Float[Tensor, "batch pos vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch"]:
    n = _half(tokens)
    return _saved(_losses(logits, tokens), slice(1, n), slice(n + 1, None))


def _logit_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    cases = []
    for batch, n, vocab in ((1, 2, 7), (3, 5, 9), (2, 6, 11), (4, 3, 8), (5, 8, 20)):
        half = torch.stack(
            [torch.randperm(vocab - 1, generator=g)[:n] for _ in range(batch)]
        )
        tokens = torch.cat([torch.full((batch, 1), vocab - 1), half, half], dim=1)
        cases.append(
            (
                2 * torch.randn(*tokens.shape, vocab, generator=g, dtype=torch.float64),
                tokens,
            )
        )
    return cases


def _loss_not_shifted(logits, tokens):
    losses = -logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]
    n = _half(tokens)
    return _saved(losses, slice(2, n + 1), slice(n + 2, None))


def _loss_raw_logits(logits, tokens):
    losses, n = -logits[:, :-1].gather(2, tokens[:, 1:, None])[..., 0], _half(tokens)
    return _saved(losses, slice(1, n), slice(n + 1, None))


loss_saved = Exercise(
    number="8.3",
    title="What repetition saves",
    solution=_loss_saved,
    cases=_logit_cases,
    misconceptions=(
        Misconception(
            "prediction not shifted",
            "Logits at a position are about the next token. You asked each position "
            "for the token that stands there.",
            _loss_not_shifted,
        ),
        Misconception(
            "first token of each copy counted",
            "Nobody can know that the second copy begins, so its first token cannot be "
            "predicted. Leave the first token of each copy out.",
            lambda logits, tokens: _saved(
                _losses(logits, tokens),
                slice(0, _half(tokens)),
                slice(_half(tokens), None),
            ),
        ),
        Misconception(
            "BOS off by one",
            "Your slices are those of a sequence without BOS; with it each of them "
            "begins and ends one later.",
            lambda logits, tokens: _saved(
                _losses(logits, tokens),
                slice(0, _half(tokens) - 1),
                slice(_half(tokens), 2 * _half(tokens) - 1),
            ),
        ),
        Misconception(
            "second copy minus first",
            "What is saved is positive if the loss is lower in the second copy.",
            lambda logits, tokens: -_loss_saved(logits, tokens),
        ),
        Misconception(
            "logits taken for log probabilities",
            "A loss is a negative log probability: the normaliser differs between "
            "positions and does not cancel.",
            _loss_raw_logits,
        ),
        Misconception(
            "sum for a mean",
            "Take the mean over the predictions of a copy, so that the number does "
            "not depend on n.",
            lambda logits, tokens: _loss_saved(logits, tokens) * (_half(tokens) - 1),
        ),
    ),
)


def _copies(tokens: Tensor) -> Tensor:
    """[dest, src]: do both positions hold the same token."""
    return (tokens[:, None] == tokens[None, :]).double()


def _shifted(matches: Tensor) -> Tensor:
    """One column to the right, with nothing in the first."""
    return torch.cat([torch.zeros_like(matches[:, :1]), matches[:, :-1]], dim=1)


def _targets(tokens: Int[Tensor, "pos"]) -> Float[Tensor, "dest src"]:
    return _shifted(_copies(tokens).tril(-1))


def _latest_copy(tokens):
    targets = _targets(tokens)
    latest = targets * torch.arange(1, len(tokens) + 1)
    return targets * (latest == latest.max(dim=1, keepdim=True).values)


def _token_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    drawn = [
        (torch.randint(vocab, (length,), generator=g),)
        for vocab, length in ((2, 6), (3, 9), (5, 12), (9, 8))
    ]
    half = torch.randperm(20, generator=g)[:5]
    return [
        (torch.tensor([4, 7, 7, 4, 1, 7, 4, 7]),),
        *drawn,
        (torch.cat([torch.tensor([20]), half, half]),),
    ]


induction_targets = Exercise(
    number="8.4",
    title="Where an induction head should look",
    solution=_targets,
    cases=_token_cases,
    misconceptions=(
        Misconception(
            "duplicates, not what follows them",
            "These are the earlier copies themselves. An induction head looks one "
            "position after each.",
            lambda tokens: _copies(tokens).tril(-1),
        ),
        Misconception(
            "shifted the wrong way",
            "Yours is the token before each earlier copy; wanted is the one after it.",
            lambda tokens: torch.cat(
                [_copies(tokens).tril(-1)[:, 1:], torch.zeros(len(tokens), 1)], dim=1
            ),
        ),
        Misconception(
            "wraps around",
            "torch.roll brings the last column round to the first: position 0 comes "
            "after nothing.",
            lambda tokens: _copies(tokens).roll(1, dims=1).tril(),
        ),
        Misconception(
            "future not masked",
            "Some of your sources lie after the destination, where no head can look: "
            "count only earlier copies.",
            lambda tokens: _shifted(_copies(tokens)),
        ),
        Misconception(
            "rows and columns swapped",
            "Destinations are rows, sources columns; yours is the transpose.",
            lambda tokens: _targets(tokens).T,
        ),
        Misconception(
            "latest copy only",
            "A token may have several earlier copies. The token after each of "
            "them counts.",
            _latest_copy,
        ),
    ),
)


def _compose(left: Tensor, right: Tensor, norm=torch.linalg.matrix_norm) -> float:
    return (norm(left @ right) / (norm(left) * norm(right))).item()


def _k_composition(
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
) -> float:
    return _compose(W_V @ W_O, W_K @ W_Q.T)


def _weight_cases(seed: int) -> list[tuple]:
    g = torch.Generator().manual_seed(seed)
    made = []
    for d_model, d_head in ((6, 2), (8, 3), (10, 4), (12, 1), (7, 5)):
        W_V, W_Q, W_K = torch.randn(
            3, d_model, d_head, generator=g, dtype=torch.float64
        )
        W_O = torch.randn(d_head, d_model, generator=g, dtype=torch.float64)
        made.append((W_V, W_O + W_K.T, W_Q, W_K))  # so that they do compose
    return made


k_composition = Exercise(
    number="8.5",
    title="K-composition of two heads",
    solution=_k_composition,
    cases=_weight_cases,
    misconceptions=(
        Misconception(
            "Q-composition",
            "W_OV W_QK is what the later head's queries read. Its keys are on the "
            "other side of W_QK.",
            lambda W_V, W_O, W_Q, W_K: _compose(W_V @ W_O, W_Q @ W_K.T),
        ),
        Misconception(
            "W_OV transposed",
            "Your product reads what goes into the earlier head, not what comes out: "
            "W_OV is transposed, or, with the same norm, W_QK transposed stands "
            "before it.",
            lambda W_V, W_O, W_Q, W_K: _compose((W_V @ W_O).T, W_Q @ W_K.T),
        ),
        Misconception(
            "wrong order",
            "With row vectors the earlier head's matrix stands on the left: the "
            "stream passes through it first.",
            lambda W_V, W_O, W_Q, W_K: _compose(W_Q @ W_K.T, W_V @ W_O),
        ),
        Misconception(
            "not divided by the norms",
            "The product's size alone grows with the size of the weights. Divide by "
            "the norms of both matrices.",
            lambda W_V, W_O, W_Q, W_K: torch.linalg.matrix_norm(
                W_V @ W_O @ W_K @ W_Q.T
            ).item(),
        ),
        Misconception(
            "spectral norm",
            "Your norm is the largest singular value (ord=2). The score is defined "
            "with the Frobenius norm, the root of the sum of all squares.",
            lambda W_V, W_O, W_Q, W_K: _compose(
                W_V @ W_O, W_K @ W_Q.T, lambda m: torch.linalg.matrix_norm(m, ord=2)
            ),
        ),
        Misconception(
            "norms of the thin factors",
            "Divide by the norms of W_OV and W_QK, not by those of their factors: a "
            "product's norm is not the product of the norms.",
            lambda W_V, W_O, W_Q, W_K: (
                (W_V @ W_O @ W_K @ W_Q.T).norm()
                / (W_V.norm() * W_O.norm() * W_K.norm() * W_Q.norm())
            ).item(),
        ),
    ),
)


def _knocked_out(model, tokens: Tensor, n: int, change) -> Tensor:
    """Induction scores while `change(z, layer)` alters every layer's z in place."""
    found = torch.zeros(model.cfg.n_layers, model.cfg.n_heads, dtype=torch.float64)

    def read(pattern, hook):
        found[hook.layer()] = pattern_scores(pattern, n, bos=True)["induction"]

    def alter(z, hook):
        z = z.clone()
        change(z, hook.layer())
        return z

    layers = range(model.cfg.n_layers)
    hooks = [
        (f"blocks.{layer}.attn.hook_{site}", f)
        for layer in layers
        for site, f in (("pattern", read), ("z", alter))
    ]
    with torch.no_grad():
        model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    return found


def _zero(index):
    """A change that zeros z at `index(layer, head)` for each of
    the heads of a layer."""

    def answer(model, tokens, n, heads):
        def change(z, layer):
            for head in [h for at, h in heads if at == layer]:
                z[index(head)] = 0

        return _knocked_out(model, tokens, n, change)

    return answer


def _induction_without(
    model,
    tokens: Int[Tensor, "batch pos"],
    n: int,
    heads: list[tuple[int, int]],
) -> Float[Tensor, "layer head"]:
    return _zero(lambda head: (slice(None), slice(None), head))(model, tokens, n, heads)


def _last_head_everywhere(model, tokens, n, heads):
    return _induction_without(
        model, tokens, n, [(layer, heads[-1][1]) for layer, _ in heads]
    )


def _model_cases(seed: int) -> list[tuple]:
    lists = (
        [(0, 1), (0, 3)],
        [(0, 0), (0, 2), (1, 3)],
        [(1, 2), (0, 3)],
        [(0, 2), (0, 0), (1, 1)],
        [(0, 1)],
    )
    cases = []
    for i, heads in enumerate(lists):
        model = random_model(seed + i % 2)
        repeated = repeated_tokens(model, n=4 + i, batch=1 + i % 3, seed=seed + i)
        cases.append((model, repeated.tokens, repeated.n, heads))
    return cases


induction_without = Exercise(
    number="8.6",
    title="Induction without some heads",
    solution=_induction_without,
    cases=_model_cases,
    misconceptions=(
        Misconception(
            "wrong head axis",
            "z is [batch, pos, head, d_head]: z[:, head] is a position. You knocked "
            "out a token, of all heads at once.",
            _zero(lambda head: (slice(None), head)),
        ),
        Misconception(
            "every head of the layer",
            "You put zero into the whole z of a layer, that is into all of its heads.",
            _zero(lambda head: ...),
        ),
        Misconception(
            "last head of the list everywhere",
            "A function made in a loop sees the loop variable as it is at the end: "
            "every hook knocks out the last head's number. Make the hook in a function "
            "of its own, or bind the value with functools.partial.",
            _last_head_everywhere,
        ),
        Misconception(
            "only the last position",
            "You put zero at the last position only. A head matters wherever a later "
            "one reads it, so take it out at all positions.",
            _zero(lambda head: (slice(None), -1, head)),
        ),
        Misconception(
            "nothing knocked out",
            "These are the scores of the intact model. Does your hook return the "
            "changed z, and is it among the hooks of the run whose patterns you read?",
            _zero(lambda head: (slice(None), slice(None), slice(0, 0))),
        ),
        Misconception(
            "only the first head of the list",
            "All heads of the list have to be out in the same run.",
            lambda model, tokens, n, heads: _induction_without(
                model, tokens, n, heads[:1]
            ),
        ),
    ),
)
