"""Wrong and restyled answers to assignment B."""

WRONG = {  # question -> name of the mistake -> (points lost, source of the answer cell)
    "q1": {
        "final LayerNorm forgotten": (
            4,
            """
def rank_along(stream, W_U, b_U, answer):
    logits = stream @ W_U + b_U
    own = logits.gather(2, answer.expand(len(stream), -1)[..., None])
    return (logits > own).sum(dim=-1)
""",
        ),
        "bias of the unembedding forgotten": (
            4,
            """
def rank_along(stream, W_U, b_U, answer):
    logits = torch.nn.functional.layer_norm(stream, stream.shape[-1:]) @ W_U
    own = logits.gather(2, answer.expand(len(stream), -1)[..., None])
    return (logits > own).sum(dim=-1)
""",
        ),
        "argsort taken for the rank": (
            4,
            """
def rank_along(stream, W_U, b_U, answer):
    logits = torch.nn.functional.layer_norm(stream, stream.shape[-1:]) @ W_U + b_U
    order = logits.argsort(dim=-1, descending=True)
    return order.gather(2, answer.expand(len(stream), -1)[..., None])[..., 0]
""",
        ),
        "counted from the bottom": (
            4,
            """
def rank_along(stream, W_U, b_U, answer):
    logits = torch.nn.functional.layer_norm(stream, stream.shape[-1:]) @ W_U + b_U
    own = logits.gather(2, answer.expand(len(stream), -1)[..., None])
    return (logits < own).sum(dim=-1)
""",
        ),
        "mean not subtracted": (
            3,  # W_U of the public case cannot tell: a mean moves all logits alike
            """
def rank_along(stream, W_U, b_U, answer):
    scale = (stream.var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    logits = stream / scale @ W_U + b_U
    own = logits.gather(2, answer.expand(len(stream), -1)[..., None])
    return (logits > own).sum(dim=-1)
""",
        ),
    },
    "q2": {
        "p and q exchanged": (
            4,
            """
def distance_to_final(logits):
    q = logits.log_softmax(-1)
    return (q.exp() * (q - q[-1])).sum(-1).mean(1)
""",
        ),
        "in bits": (
            4,
            """
def distance_to_final(logits):
    q = logits.log_softmax(-1)
    return (q[-1].exp() * (q[-1] - q)).sum(-1).mean(1) / torch.log(torch.tensor(2.0))
""",
        ),
        "sum over prompts": (
            4,
            """
def distance_to_final(logits):
    q = logits.log_softmax(-1)
    return (q[-1].exp() * (q[-1] - q)).sum((1, 2))
""",
        ),
        "cross-entropy": (
            4,
            """
def distance_to_final(logits):
    q = logits.log_softmax(-1)
    return -(q[-1].exp() * q).sum(-1).mean(1)
""",
        ),
        "mean over tokens, as kl_div has it": (
            4,
            """
def distance_to_final(logits):
    q = logits.log_softmax(-1)
    return (q[-1].exp() * (q[-1] - q)).flatten(1).mean(1)
""",
        ),
    },
    "q3": {
        "the place before the step": (
            3,
            """
def step_votes(values, labels):
    steps = values.diff(dim=0).argmax(dim=0).tolist()
    return {labels[i]: steps.count(i) for i in set(steps)}
""",
        ),
        "a loss taken for a gain": (
            3,
            """
def step_votes(values, labels):
    steps = values.diff(dim=0).abs().argmax(dim=0).tolist()
    return {labels[i + 1]: steps.count(i) for i in set(steps)}
""",
        ),
        "the highest place, not the largest step": (
            3,
            """
def step_votes(values, labels):
    places = values.argmax(dim=0).tolist()
    return {labels[i]: places.count(i) for i in set(places)}
""",
        ),
        "the mean has all votes": (
            3,
            """
def step_votes(values, labels):
    return {labels[1 + int(values.mean(dim=1).diff().argmax())]: values.shape[1]}
""",
        ),
        "labels without a vote kept": (
            3,
            """
def step_votes(values, labels):
    steps = values.diff(dim=0).argmax(dim=0).tolist()
    return {label: steps.count(i) for i, label in enumerate(labels[1:])}
""",
        ),
        "ties go to the later step": (
            2,
            """
def step_votes(values, labels):
    gains = values.diff(dim=0)
    steps = (len(gains) - 1 - gains.flip(0).argmax(dim=0)).tolist()
    return {labels[i + 1]: steps.count(i) for i in set(steps)}
""",
        ),
    },
    "q4": {
        "scale forgotten": (
            4,
            """
def speaks_for(wrote, W_U, scale, token, others):
    logits = (wrote - wrote.mean(-1, keepdim=True)) @ W_U
    return logits.gather(1, token[:, None])[:, 0] - logits[:, others].mean(1)
""",
        ),
        "mean not subtracted": (
            4,
            """
def speaks_for(wrote, W_U, scale, token, others):
    logits = wrote / scale @ W_U
    return logits.gather(1, token[:, None])[:, 0] - logits[:, others].mean(1)
""",
        ),
        "the part's own scale": (
            4,
            """
def speaks_for(wrote, W_U, scale, token, others):
    logits = torch.nn.functional.layer_norm(wrote, wrote.shape[-1:]) @ W_U
    return logits.gather(1, token[:, None])[:, 0] - logits[:, others].mean(1)
""",
        ),
        "softmax before the difference": (
            4,
            """
def speaks_for(wrote, W_U, scale, token, others):
    probs = ((wrote - wrote.mean(-1, keepdim=True)) / scale @ W_U).softmax(-1)
    return probs.gather(1, token[:, None])[:, 0] - probs[:, others].mean(1)
""",
        ),
        "best other, not their mean": (
            4,
            """
def speaks_for(wrote, W_U, scale, token, others):
    logits = (wrote - wrote.mean(-1, keepdim=True)) / scale @ W_U
    return logits.gather(1, token[:, None])[:, 0] - logits[:, others].amax(1)
""",
        ),
    },
    "q5": {
        "last column taken for END": (
            5,
            """
def heads_and_bias(z, W_O, b_O, direction, end):
    heads = torch.einsum("bhd,hdm,bm->bh", z[:, -1], W_O, direction)
    return torch.cat([heads, (direction @ b_O)[:, None]], dim=1)
""",
        ),
        "END off by one": (
            5,
            """
def heads_and_bias(z, W_O, b_O, direction, end):
    heads = torch.einsum(
        "bhd,hdm,bm->bh", z[torch.arange(len(z)), end - 1], W_O, direction
    )
    return torch.cat([heads, (direction @ b_O)[:, None]], dim=1)
""",
        ),
        "bias shared out among the heads": (
            4,  # the rows still add up
            """
def heads_and_bias(z, W_O, b_O, direction, end):
    heads = torch.einsum("bhd,hdm,bm->bh", z[torch.arange(len(z)), end], W_O, direction)
    bias = (direction @ b_O)[:, None]
    return torch.cat([heads + bias / len(W_O), 0 * bias], dim=1)
""",
        ),
        "bias left out": (
            5,
            """
def heads_and_bias(z, W_O, b_O, direction, end):
    heads = torch.einsum("bhd,hdm,bm->bh", z[torch.arange(len(z)), end], W_O, direction)
    return torch.cat([heads, torch.zeros(len(z), 1)], dim=1)
""",
        ),
        "heads only": (
            5,
            """
def heads_and_bias(z, W_O, b_O, direction, end):
    return torch.einsum("bhd,hdm,bm->bh", z[torch.arange(len(z)), end], W_O, direction)
""",
        ),
    },
    "q6": {
        "scale held at that of after": (
            4,
            """
def split_change(before, after, direction):
    def read(stream, scale):
        return ((stream - stream.mean(-1, keepdim=True)) / scale * direction).sum(-1)

    old, new = (
        (s.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for s in (before, after)
    )
    return read(after, new) - read(before, new), read(before, new) - read(before, old)
""",
        ),
        "before minus after": (
            4,
            """
def split_change(before, after, direction):
    def read(stream, scale):
        return ((stream - stream.mean(-1, keepdim=True)) / scale * direction).sum(-1)

    old, new = (
        (s.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for s in (before, after)
    )
    return read(before, old) - read(after, old), read(after, old) - read(after, new)
""",
        ),
        "no scale at all": (
            4,
            """
def split_change(before, after, direction):
    whole = torch.nn.functional.layer_norm
    d = before.shape[-1:]
    change = ((whole(after, d) - whole(before, d)) * direction).sum(-1)
    held = ((after - before - (after - before).mean(-1, keepdim=True)) * direction).sum(
        -1
    )
    return held, change - held
""",
        ),
        "deviation of a sample": (
            4,
            """
def split_change(before, after, direction):
    def read(stream, scale):
        return ((stream - stream.mean(-1, keepdim=True)) / scale * direction).sum(-1)
    old, new = ((s.var(-1, keepdim=True) + 1e-5).sqrt() for s in (before, after))
    return read(after, old) - read(before, old), read(after, new) - read(after, old)
""",
        ),
        "mean over prompts": (
            3,  # the public case has one prompt
            """
def split_change(before, after, direction):
    def read(stream, scale):
        return ((stream - stream.mean(-1, keepdim=True)) / scale * direction).sum(-1)

    old, new = (
        (s.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for s in (before, after)
    )
    held, rest = (
        read(after, old) - read(before, old),
        read(after, new) - read(after, old),
    )
    return held.mean().expand(len(held)), rest.mean().expand(len(rest))
""",
        ),
    },
    "q7": {
        "last row taken for END": (
            4,
            """
def awake(pattern, end, least=0.01):
    row = pattern[:, :, -1].clone()
    row[..., 0] = 0
    rest = row.sum(-1, keepdim=True)
    return torch.where(rest < least, 0, row / rest)
""",
        ),
        "not made to sum to 1 again": (
            4,
            """
def awake(pattern, end, least=0.01):
    row = pattern[torch.arange(len(pattern)), :, end].clone()
    row[..., 0] = 0
    return torch.where(row.sum(-1, keepdim=True) < least, 0, row)
""",
        ),
        "resting heads kept": (
            4,
            """
def awake(pattern, end, least=0.01):
    row = pattern[torch.arange(len(pattern)), :, end].clone()
    row[..., 0] = 0
    return row / row.sum(-1, keepdim=True)
""",
        ),
        "BOS cut off, sources off by one": (
            4,
            """
def awake(pattern, end, least=0.01):
    row = pattern[torch.arange(len(pattern)), :, end, 1:]
    rest = row.sum(-1, keepdim=True)
    return torch.where(rest < least, 0, row / rest)
""",
        ),
        "the default taken for the argument": (
            3,
            """
def awake(pattern, end, least=0.01):
    row = pattern[torch.arange(len(pattern)), :, end].clone()
    row[..., 0] = 0
    rest = row.sum(-1, keepdim=True)
    return torch.where(rest < 0.01, 0, row / rest)
""",
        ),
        "the pattern changed in place": (
            4,
            """
def awake(pattern, end, least=0.01):
    pattern[..., 0] = 0
    row = pattern[torch.arange(len(pattern)), :, end]
    rest = row.sum(-1, keepdim=True)
    return torch.where(rest < least, 0, row / rest)
""",
        ),
    },
    "q8": {
        "not divided by the root of d_head": (
            4,
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    queries = torch.cat(
        [(parts - parts.mean(-1, keepdim=True)) / scale @ W_Q, b_Q[None]]
    )
    return queries @ k.T
""",
        ),
        "scale forgotten": (
            4,
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    queries = torch.cat([(parts - parts.mean(-1, keepdim=True)) @ W_Q, b_Q[None]])
    return queries @ k.T / W_Q.shape[1] ** 0.5
""",
        ),
        "each part by its own scale": (
            4,
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    normal = torch.nn.functional.layer_norm(parts, parts.shape[-1:])
    return torch.cat([normal @ W_Q, b_Q[None]]) @ k.T / W_Q.shape[1] ** 0.5
""",
        ),
        "mean not subtracted": (
            3,  # the stream of a model with centered weights has the mean 0
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    return torch.cat([parts / scale @ W_Q, b_Q[None]]) @ k.T / W_Q.shape[1] ** 0.5
""",
        ),
        "bias in every part": (
            4,
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    queries = (parts - parts.mean(-1, keepdim=True)) / scale @ W_Q + b_Q
    return torch.cat([queries, b_Q[None]]) @ k.T / W_Q.shape[1] ** 0.5
""",
        ),
        "the bias divided by the scale": (
            4,
            """
def score_parts(parts, scale, W_Q, b_Q, k):
    queries = (
        torch.cat([(parts - parts.mean(-1, keepdim=True)) @ W_Q, b_Q[None]]) / scale
    )
    return queries @ k.T / W_Q.shape[1] ** 0.5
""",
        ),
    },
    "q9": {
        "mean over prompts first": (
            3,
            """
def regular_heads(attention, key, share):
    top = attention.mean(0).argmax(-1) == key
    return [tuple(pair) for pair in top.nonzero().tolist()]
""",
        ),
        "attention compared with the share": (
            3,
            """
def regular_heads(attention, key, share):
    return [
        tuple(pair)
        for pair in (attention[..., key].mean(0) >= share).nonzero().tolist()
    ]
""",
        ),
        "head before layer": (
            3,
            """
def regular_heads(attention, key, share):
    often = (attention.argmax(-1) == key).double().mean(0)
    return [(head, layer) for layer, head in (often >= share).nonzero().tolist()]
""",
        ),
        "exactly the share left out": (
            3,
            """
def regular_heads(attention, key, share):
    often = (attention.argmax(-1) == key).double().mean(0)
    return [tuple(pair) for pair in (often > share).nonzero().tolist()]
""",
        ),
        "the number of the key ignored": (
            2,
            """
def regular_heads(attention, key, share):
    layers, heads = attention.shape[1:3]
    often = (attention.argmax(-1) == key).double().mean(0)
    return [(i, j) for j in range(heads) for i in range(layers) if often[i, j] >= share]
""",
        ),
    },
    "q10": {
        "the head that raises it most": (
            3,  # the public test, and both heads
            """
direct = direct_attribution(model, data, "head").mean
looks = attention_to_roles(model, data).mean("END", "IO")
sources = source_attribution(model, data, [(9, 9)]).mean[0]
q10_against = divmod(int(direct.argmax()), 12)
q10_idle = divmod(int(looks.masked_fill(direct.abs() >= 0.1, 0).argmax()), 12)
q10_share = (sources[1] / sources.sum()).item()
q10_letter = "C"
""",
        ),
        "attention taken for the effect": (
            3,  # the idle head, and the letter
            """
direct = direct_attribution(model, data, "head").mean
looks = attention_to_roles(model, data).mean("END", "IO")
sources = source_attribution(model, data, [(9, 9)]).mean[0]
q10_against = divmod(int(direct.argmin()), 12)
q10_idle = divmod(int(direct.abs().argmin()), 12)
q10_share = (sources[1] / sources.sum()).item()
q10_letter = "A"
""",
        ),
        "attention to IO taken for the share": (
            1,
            """
direct = direct_attribution(model, data, "head").mean
looks = attention_to_roles(model, data).mean("END", "IO")
q10_against = divmod(int(direct.argmin()), 12)
q10_idle = divmod(int(looks.masked_fill(direct.abs() >= 0.1, 0).argmax()), 12)
q10_share = looks[9, 9].item()
q10_letter = "C"
""",
        ),
    },
}

RESTYLED = {  # question -> style -> source of an answer cell that is right
    "q1": {
        "argsort of argsort": """
def rank_along(stream, W_U, b_U, answer):
    mean = stream.mean(-1, keepdim=True)
    std = (((stream - mean) ** 2).mean(-1, keepdim=True) + 1e-5) ** 0.5
    logits = (stream - mean) / std @ W_U + b_U
    ranks = logits.argsort(-1, descending=True).argsort(-1)
    return ranks[:, torch.arange(len(answer)), answer]
""",
        "from probabilities": """
def rank_along(stream, W_U, b_U, answer):
    probs = (torch.layer_norm(stream, stream.shape[-1:]) @ W_U + b_U).softmax(-1)
    own = probs[:, range(len(answer)), answer]
    return (probs > own.unsqueeze(-1)).sum(-1)
""",
        "slow but right": """
def rank_along(stream, W_U, b_U, answer):
    ranks = torch.zeros(stream.shape[:2], dtype=torch.long)
    for place in range(stream.shape[0]):
        for i in range(stream.shape[1]):
            x = stream[place, i] - stream[place, i].mean()
            x = x / (x @ x / len(x) + 1e-5) ** 0.5
            logits = [float(x @ W_U[:, t] + b_U[t]) for t in range(W_U.shape[1])]
            ranks[place, i] = sum(one > logits[answer[i]] for one in logits)
    return ranks
""",
    },
    "q2": {
        "kl_div of PyTorch": """
def distance_to_final(logits):
    q = torch.log_softmax(logits, dim=-1)
    kl = torch.nn.functional.kl_div
    return torch.stack(
        [kl(place, q[-1], reduction="batchmean", log_target=True) for place in q]
    )
""",
        "numpy": """
import numpy as np

def distance_to_final(logits):
    x = logits.numpy()
    x = x - x.max(axis=-1, keepdims=True)
    logs = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return (np.exp(logs[-1]) * (logs[-1] - logs)).sum(axis=-1).mean(axis=1)
""",
        "lambda": """
distance_to_final = lambda logits: torch.stack(
    [
        (logits[-1].softmax(-1) * (logits[-1].log_softmax(-1) - one.log_softmax(-1)))
        .sum(-1)
        .mean()
        for one in logits
    ]
)
""",
    },
    "q3": {
        "counted by a Counter": """
from collections import Counter

def step_votes(values, labels):
    best = (values[1:] - values[:-1]).max(dim=0).indices + 1
    return dict(Counter(labels[i] for i in best))
""",
        "class": """
class Votes(dict):
    def __missing__(self, label):
        return 0

    def cast(self, column, labels):
        gains = [after - before for before, after in zip(column, column[1:])]
        self[labels[gains.index(max(gains)) + 1]] += 1

def step_votes(values, labels):
    votes = Votes()
    for column in values.T.tolist():
        votes.cast(column, labels)
    return votes
""",
        "numpy": """
import numpy as np


def step_votes(values, labels):
    ends, counts = np.unique(
        np.diff(values.numpy(), axis=0).argmax(axis=0) + 1, return_counts=True
    )
    return {labels[end]: count for end, count in zip(ends, counts)}
""",
    },
    "q4": {
        "all logits first": """
def speaks_for(wrote, W_U, scale, token, others):
    logits = ((wrote - wrote.mean(1, keepdim=True)) @ W_U) / scale
    return logits[torch.arange(len(token)), token] - logits[:, others].mean(dim=1)
""",
        "the direction centred instead": """
def speaks_for(wrote, W_U, scale, token, others):
    direction = W_U[:, token] - W_U[:, others].mean(1, keepdim=True)
    direction = direction - direction.mean(0)
    return torch.einsum("bm,mb->b", wrote, direction) / scale.squeeze(1)
""",
    },
    "q5": {
        "head by head": """
def heads_and_bias(z, W_O, b_O, direction, end):
    columns = []
    for head, matrix in enumerate(W_O):
        wrote = torch.stack([z[i, e, head] for i, e in enumerate(end)]) @ matrix
        columns.append((wrote * direction).sum(1))
    columns.append((b_O * direction).sum(1))
    return torch.stack(columns, 1)
""",
        "class": """
class Layer:
    def __init__(self, W_O, b_O):
        self.W_O, self.b_O = W_O, b_O

    def parts(self, z, direction):
        return torch.stack(
            [
                *(z[h] @ W @ direction for h, W in enumerate(self.W_O)),
                self.b_O @ direction,
            ]
        )


class HeadsAndBias:
    def __call__(self, z, W_O, b_O, direction, end):
        layer = Layer(W_O, b_O)
        return torch.stack(
            [layer.parts(z[i, end[i]], direction[i]) for i in range(len(z))]
        )


heads_and_bias = HeadsAndBias()
""",
        "slow but right": """
def heads_and_bias(z, W_O, b_O, direction, end):
    batch, _, heads, d_head = z.shape
    out = torch.zeros(batch, heads + 1, dtype=torch.float64)
    for i in range(batch):
        at = int(end[i])
        for m in range(len(b_O)):
            out[i, heads] += b_O[m] * direction[i, m]
            for h in range(heads):
                for d in range(d_head):
                    out[i, h] += z[i, at, h, d] * W_O[h, d, m] * direction[i, m]
    return out
""",
    },
    "q6": {
        "by the scales": """
def split_change(before, after, direction):
    a, b = (s - s.mean(1, keepdim=True) for s in (before, after))
    old, new = ((c.square().mean(1) + 1e-5).sqrt() for c in (a, b))
    held = ((b - a) * direction).sum(1) / old
    return held, (b * direction).sum(1) * (1 / new - 1 / old)
""",
    },
    "q7": {
        "with a mask": """
def awake(pattern, end, least=0.01):
    at_end = torch.stack([p[:, e] for p, e in zip(pattern, end)])
    at_end = at_end * (torch.arange(pattern.shape[-1]) > 0)
    total = at_end.sum(-1)
    works = total >= least
    return at_end / torch.where(works, total, 1.0)[..., None] * works[..., None]
""",
    },
    "q8": {
        "row by row": """
def score_parts(parts, scale, W_Q, b_Q, k):
    d_head = len(b_Q)
    rows = [((part - part.mean()) / scale) @ W_Q @ k.T for part in parts]
    return torch.stack([*rows, k @ b_Q]) / d_head**0.5
""",
    },
    "q9": {
        "head by head": """
def regular_heads(attention, key, share):
    found = []
    for layer in range(attention.shape[1]):
        for head in range(attention.shape[2]):
            wins = sum(int(row.argmax()) == key for row in attention[:, layer, head])
            if wins / len(attention) >= share:
                found.append([layer, head])
    return found
""",
        "lambda": """
regular_heads = lambda attention, key, share: [
    (layer, head)
    for layer in range(attention.shape[1])
    for head in range(attention.shape[2])
    if sum(int(row.argmax()) == key for row in attention[:, layer, head])
    >= share * len(attention) - 1e-9
]
""",
    },
    "q10": {
        "from the tables": """
table = direct_attribution(model, data, "head").top(144)
def pair(label):
    layer, head = label[1:].split("H")
    return int(layer), int(head)
q10_against = pair(table["mean"].idxmin())
small = {pair(name) for name, mean in table["mean"].items() if abs(mean) < 0.1}
looks = attention_to_roles(model, data)
ranked = [pair(name) for name in looks.top("END", "IO", 144).index]
q10_idle = next(head for head in ranked if head in small)
parts = source_attribution(model, data, [(9, 9)]).top(9)["mean"]
q10_share = float(parts["L9H9 IO"] / parts.sum())
q10_letter = "C"
""",
    },
}
