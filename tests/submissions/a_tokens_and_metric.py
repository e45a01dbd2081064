"""Wrong and restyled answers to assignment A."""

WRONG = {  # question -> name of the mistake -> (points lost, source of the answer cell)
    "q1": {
        "always with a space": (
            3,
            """
def fitting_names(tokenizer, template, names):
    return [
        name
        for name in names
        if len(tokenizer.encode(" " + name, add_special_tokens=False)) == 1
    ]
""",
        ),
        "never with a space": (
            3,
            """
def fitting_names(tokenizer, template, names):
    return [
        name
        for name in names
        if len(tokenizer.encode(name, add_special_tokens=False)) == 1
    ]
""",
        ),
        "only the start of the text has no space": (
            2,
            """
def fitting_names(tokenizer, template, names):
    space = "" if template.startswith("[X]") else " "
    return [
        name
        for name in names
        if len(tokenizer.encode(space + name, add_special_tokens=False)) == 1
    ]
""",
        ),
    },
    "q2": {
        "BOS off by one": (
            4,
            """
def token_at(str_tokens, char):
    end = 0
    for pos, token in enumerate(str_tokens[1:]):
        end += len(token)
        if 0 <= char < end:
            return pos
    raise ValueError(f"no character {char}")
""",
        ),
        "characters of BOS counted": (
            4,
            """
def token_at(str_tokens, char):
    end = 0
    for pos, token in enumerate(str_tokens):
        end += len(token)
        if 0 <= char < end:
            return pos
    raise ValueError(f"no character {char}")
""",
        ),
        "space given to the token before": (
            4,
            """
def token_at(str_tokens, char):
    end = 0
    for pos, token in enumerate(str_tokens[1:], start=1):
        end += len(token)
        if 0 <= char <= end:
            return pos
    raise ValueError(f"no character {char}")
""",
        ),
        "no error outside of the text": (
            1,
            """
def token_at(str_tokens, char):
    end = 0
    for pos, token in enumerate(str_tokens[1:], start=1):
        end += len(token)
        if char < end:
            return pos
""",
        ),
    },
    "q3": {
        "last column taken for END": (
            4,
            """
def role_table(tokens, answers, pad):
    io = (tokens == answers[:, :1]).long().argmax(1)
    both = torch.stack(
        [(row == s).nonzero().flatten() for row, s in zip(tokens, answers[:, 1])]
    )
    end = torch.full_like(io, tokens.shape[1] - 1)
    return torch.stack([io, both[:, 0], both[:, 0] + 1, both[:, 1], end], dim=1)
""",
        ),
        "padding counted, BOS with it": (
            3,  # right without BOS
            """
def role_table(tokens, answers, pad):
    io = (tokens == answers[:, :1]).long().argmax(1)
    both = torch.stack(
        [(row == s).nonzero().flatten() for row, s in zip(tokens, answers[:, 1])]
    )
    end = (tokens != pad).sum(1) - 1
    return torch.stack([io, both[:, 0], both[:, 0] + 1, both[:, 1], end], dim=1)
""",
        ),
        "BOS always assumed": (
            1,
            """
def role_table(tokens, answers, pad):
    io = (tokens == answers[:, :1]).long().argmax(1)
    both = torch.stack(
        [(row == s).nonzero().flatten() for row, s in zip(tokens, answers[:, 1])]
    )
    end = (tokens != pad).sum(1)
    return torch.stack([io, both[:, 0], both[:, 0] + 1, both[:, 1], end], dim=1)
""",
        ),
        "S1 and S2 exchanged": (
            4,
            """
def role_table(tokens, answers, pad):
    io = (tokens == answers[:, :1]).long().argmax(1)
    both = torch.stack(
        [(row == s).nonzero().flatten() for row, s in zip(tokens, answers[:, 1])]
    )
    end = torch.stack([(row != pad).nonzero().max() for row in tokens])
    return torch.stack([io, both[:, 1], both[:, 1] + 1, both[:, 0], end], dim=1)
""",
        ),
    },
    "q4": {
        "BOS taken for padding": (
            4,
            """
def repad(tokens, pad):
    shift = (tokens != pad).long().argmax(dim=1)
    return torch.stack([row.roll(-int(by)) for row, by in zip(tokens, shift)]), shift
""",
        ),
        "shift in the wrong direction": (
            4,
            """
def repad(tokens, pad):
    shift = 1 - (tokens != pad).long().argmax(dim=1)
    return torch.stack([row.roll(int(by)) for row, by in zip(tokens, shift)]), shift
""",
        ),
        "rows reversed": (
            4,
            """
def repad(tokens, pad):
    shift = (tokens != pad).long().argmax(dim=1) - 1
    return tokens.flip(1), shift
""",
        ),
        "one shift for the whole batch": (
            4,
            """
def repad(tokens, pad):
    shift = ((tokens != pad).long().argmax(dim=1) - 1).max()
    return tokens.roll(-int(shift), dims=1), shift.repeat(len(tokens))
""",
        ),
        "argument changed in place": (
            4,
            """
def repad(tokens, pad):
    shift = (tokens != pad).long().argmax(dim=1) - 1
    for i, by in enumerate(shift):
        tokens[i] = tokens[i].roll(-int(by))
    return tokens, shift
""",
        ),
    },
    "q5": {
        "positions without a role left out": (
            4,
            """
def changed_roles(clean, corrupted, pos):
    rows = range(len(clean))
    return [
        {role for role, at in pos.items() if clean[i, at[i]] != corrupted[i, at[i]]}
        for i in rows
    ]
""",
        ),
        "the first prompt's positions for all": (
            4,
            """
def changed_roles(clean, corrupted, pos):
    role_of = {int(at[0]): role for role, at in pos.items()}
    return [
        {role_of.get(p, "other") for p in row.nonzero().flatten().tolist()}
        for row in clean != corrupted
    ]
""",
        ),
        "first difference only": (
            4,
            """
def changed_roles(clean, corrupted, pos):
    found = []
    for i, row in enumerate(clean != corrupted):
        role_of = {int(at[i]): role for role, at in pos.items()}
        found.append(
            {role_of.get(p, "other") for p in row.nonzero().flatten().tolist()[:1]}
        )
    return found
""",
        ),
        "one set for the whole batch": (
            4,
            """
def changed_roles(clean, corrupted, pos):
    rows = torch.arange(len(clean))
    return {
        role
        for role, at in pos.items()
        if (clean[rows, at] != corrupted[rows, at]).any()
    }
""",
        ),
        "the public pairs by heart": (
            3,
            """
def changed_roles(clean, corrupted, pos):
    return [{"S2"}, {"S1", "other"}, set()]
""",
        ),
    },
    "q6": {
        "seeded anew for each pair": (
            3,  # one pair for one seed is as likely as any other
            """
def draw_pairs(names, n, seed):
    return [tuple(random.Random(seed).sample(names, 2)) for _ in range(n)]
""",
        ),
        "everybody's generator seeded": (
            1,
            """
def draw_pairs(names, n, seed):
    random.seed(seed)
    return random.sample([(io, s) for io in names for s in names if io != s], n)
""",
        ),
        "PyTorch's generator seeded": (
            1,
            """
def draw_pairs(names, n, seed):
    torch.manual_seed(seed)
    pairs = [(io, s) for io in names for s in names if io != s]
    return [pairs[i] for i in torch.randperm(len(pairs))[:n]]
""",
        ),
        "drawn with replacement": (
            2,
            """
def draw_pairs(names, n, seed):
    rng = random.Random(seed)
    return [tuple(rng.sample(names, 2)) for _ in range(n)]
""",
        ),
        "the first pairs, whatever the seed": (
            2,
            """
def draw_pairs(names, n, seed):
    return [(io, s) for io in names for s in names if io != s][:n]
""",
        ),
        "IO and S in the order of the list": (
            2,
            """
def draw_pairs(names, n, seed):
    pairs = [(io, s) for i, io in enumerate(names) for s in names[i + 1 :]]
    return random.Random(seed).sample(pairs, n)
""",
        ),
    },
    "q7": {
        "last column taken for END": (
            4,
            """
def margin(logits, end, io, names):
    last = logits[:, -1]
    others = last[:, names].masked_fill(names == io[:, None], -torch.inf)
    return last.gather(1, io[:, None])[:, 0] - others.amax(1)
""",
        ),
        "IO compared with itself": (
            4,
            """
def margin(logits, end, io, names):
    at_end = logits[torch.arange(len(logits)), end]
    return at_end.gather(1, io[:, None])[:, 0] - at_end[:, names].amax(1)
""",
        ),
        "compared with every token": (
            4,
            """
def margin(logits, end, io, names):
    at_end = logits[torch.arange(len(logits)), end].clone()
    best = at_end.gather(1, io[:, None])[:, 0].clone()
    at_end.scatter_(1, io[:, None], -torch.inf)
    return best - at_end.amax(1)
""",
        ),
        "softmax before the difference": (
            4,
            """
def margin(logits, end, io, names):
    at_end = logits[torch.arange(len(logits)), end].softmax(-1)
    others = at_end[:, names].masked_fill(names == io[:, None], -torch.inf)
    return at_end.gather(1, io[:, None])[:, 0] - others.amax(1)
""",
        ),
        "mean of the others": (
            4,
            """
def margin(logits, end, io, names):
    at_end = logits[torch.arange(len(logits)), end]
    mine, named = at_end.gather(1, io[:, None])[:, 0], at_end[:, names]
    return mine - (named.sum(1) - mine) / (len(names) - 1)
""",
        ),
        "IO's logit set to zero, not left out": (
            3,  # right as long as some other name has a positive logit
            """
def margin(logits, end, io, names):
    at_end = logits[torch.arange(len(logits)), end]
    others = at_end[:, names].masked_fill(names == io[:, None], 0)
    return at_end.gather(1, io[:, None])[:, 0] - others.amax(1)
""",
        ),
    },
    "q8": {
        "mean over prompts": (
            4,
            """
def balanced_mean(diff, abba):
    return diff.mean().item(), (diff.std() / len(diff) ** 0.5).item()
""",
        ),
        "error of all prompts together": (
            4,
            """
def balanced_mean(diff, abba):
    return ((diff[abba].mean() + diff[~abba].mean()) / 2).item(), (
        diff.std() / len(diff) ** 0.5
    ).item()
""",
        ),
        "error not halved": (
            4,
            """
def balanced_mean(diff, abba):
    a, b = diff[abba], diff[~abba]
    return ((a.mean() + b.mean()) / 2).item(), (
        a.var() / len(a) + b.var() / len(b)
    ).sqrt().item()
""",
        ),
        "mean of the two errors": (
            4,
            """
def balanced_mean(diff, abba):
    a, b = diff[abba], diff[~abba]
    return ((a.mean() + b.mean()) / 2).item(), (
        (a.std() / len(a) ** 0.5 + b.std() / len(b) ** 0.5) / 2
    ).item()
""",
        ),
        "deviation of these prompts only": (
            4,
            """
def balanced_mean(diff, abba):
    a, b = diff[abba], diff[~abba]
    error = (a.var(correction=0) / len(a) + b.var(correction=0) / len(b)).sqrt() / 2
    return ((a.mean() + b.mean()) / 2).item(), error.item()
""",
        ),
    },
    "q9": {
        "mean of ratios": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return ((patched - corrupted) / (clean - corrupted)).mean(dim=-1)
""",
        ),
        "scale upside down": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return (patched.mean(-1) - clean.mean()) / (corrupted.mean() - clean.mean())
""",
        ),
        "gap without its sign": (
            3,
            """
def scaled_map(patched, clean, corrupted):
    return (patched.mean(-1) - corrupted.mean()) / (
        clean.mean() - corrupted.mean()
    ).abs()
""",
        ),
        "share of the clean value": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return patched.mean(-1) / clean.mean()
""",
        ),
        "mean over positions, not prompts": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return (patched.mean(1) - corrupted.mean()) / (clean.mean() - corrupted.mean())
""",
        ),
        "a bracket left open": (
            4,
            "def scaled_map(patched, clean, corrupted):\n    return (patched.mean(-1)",
        ),
        "a name that nobody defined": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return normalize(patched.mean(-1), clean.mean(), corrupted.mean())
""",
        ),
        "squeezed to a vector": (
            4,
            """
def scaled_map(patched, clean, corrupted):
    return (
        (patched.mean(-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())
    ).squeeze()
""",
        ),
    },
    "q10": {
        "bare logits": (
            3,
            """
change = (
    extra_at_end.gather(1, extra.answers).mean(0)
    - at_end.gather(1, data.answers).mean(0)
    + 1
)
q10_io, q10_s, q10_letter = change[0].item(), change[1].item(), "B"
""",
        ),
        "clean minus changed": (
            5,
            """
ids = torch.tensor([model.to_single_token(f" {name}") for name in data.names])
def against(logits, dataset):
    both = dataset.answers
    others = (logits[:, ids].sum(1) - logits.gather(1, both).sum(1)) / (len(ids) - 2)
    return (logits.gather(1, both) - others[:, None]).mean(0)
change = against(at_end, data) - against(extra_at_end, extra)
q10_io, q10_s, q10_letter = change[0].item(), change[1].item(), "B"
""",
        ),
        "only IO is thought to move": (
            1,
            """
ids = torch.tensor([model.to_single_token(f" {name}") for name in data.names])
def against(logits, dataset):
    both = dataset.answers
    others = (logits[:, ids].sum(1) - logits.gather(1, both).sum(1)) / (len(ids) - 2)
    return (logits.gather(1, both) - others[:, None]).mean(0)
change = against(extra_at_end, extra) - against(at_end, data)
q10_io, q10_s, q10_letter = change[0].item(), change[1].item(), "C"
""",
        ),
        "the letter guessed": (5, 'q10_io, q10_s, q10_letter = 0.0, 0.0, "B"'),
    },
}

RESTYLED = {  # question -> style -> source of an answer cell that is right
    "q1": {
        "looks at what stands before": '''
def fitting_names(tokenizer, template, names):
    """Which of them fit."""
    before = template.split("[X]")[0]
    lead = " " if before.endswith(" ") else ""

    def pieces(name):
        return tokenizer(lead + name, add_special_tokens=False).input_ids

    return list(filter(lambda name: len(pieces(name)) == 1, names))
''',
        "lambda": """
pieces = lambda tokenizer, text: len(tokenizer.encode(text, add_special_tokens=False))
fitting_names = lambda tokenizer, template, names: [
    name for name in names if pieces(tokenizer, " " * (" [X]" in template) + name) == 1
]
""",
    },
    "q2": {
        "one entry for each character": """
def token_at(str_tokens, char):
    owner = [pos for pos in range(1, len(str_tokens)) for _ in str_tokens[pos]]
    if not 0 <= char < len(owner):
        raise ValueError("no such character")
    return owner[char]
""",
        "bisection": """
from bisect import bisect_right
from itertools import accumulate

def token_at(str_tokens, char):
    ends = list(accumulate(len(token) for token in str_tokens[1:]))
    if char < 0 or char >= ends[-1]:
        raise ValueError(char)
    return 1 + bisect_right(ends, char)
""",
        "class": """
class Text:
    def __init__(self, str_tokens):
        self.owners = [
            pos for pos, token in enumerate(str_tokens) if pos for _ in token
        ]

    @classmethod
    def token_at(cls, str_tokens, char):
        text = cls(str_tokens)
        if char not in range(len(text.owners)):
            raise ValueError(char)
        return text.owners[char]


token_at = Text.token_at
""",
        "slow but right": """
def token_at(str_tokens, char):
    found = None
    for _ in range(200):
        text = ""
        for pos in range(1, len(str_tokens)):
            for letter in str_tokens[pos]:
                if len(text) == char:
                    found = pos
                text = text + letter
    if found is None:
        raise ValueError(f"{char} is no character of {text!r}")
    return found
""",
    },
    "q3": {
        "row by row": """
def role_table(tokens, answers, pad):
    rows = []
    for row, (io, s) in zip(tokens.tolist(), answers.tolist()):
        s1 = row.index(s)
        s2 = row.index(s, s1 + 1)
        end = max(i for i, token in enumerate(row) if token != pad)
        rows.append([row.index(io), s1, s1 + 1, s2, end])
    return torch.tensor(rows)
""",
        "numpy": """
import numpy as np

def role_table(tokens, answers, pad):
    tokens, answers = tokens.numpy(), answers.numpy()
    places = np.arange(tokens.shape[1])
    is_io, is_s = tokens == answers[:, :1], tokens == answers[:, 1:]
    io, s1 = is_io.argmax(axis=1), is_s.argmax(axis=1)
    s2, end = (places * is_s).max(axis=1), (places * (tokens != pad)).max(axis=1)
    return np.stack([io, s1, s1 + 1, s2, end], axis=1)
""",
    },
    "q4": {
        "with gather": """
def repad(tokens, pad):
    width = tokens.shape[1]
    shift = (tokens != pad).int().argmax(1) - 1
    index = (torch.arange(width) + shift[:, None]) % width
    return tokens.gather(1, index), shift
""",
    },
    "q5": {
        "role by role": """
def changed_roles(clean, corrupted, pos):
    result = []
    for i in range(len(clean)):
        different = set((clean[i] != corrupted[i]).nonzero()[:, 0].tolist())
        roles = {r for r in pos if pos[r][i].item() in different}
        if different - {pos[r][i].item() for r in pos}:
            roles.add("other")
        result.append(roles)
    return result
""",
        "slow but right": """
import time

def changed_roles(clean, corrupted, pos):
    found = []
    for i in range(len(clean)):
        time.sleep(0.02)
        found.append(set())
        for place in range(clean.shape[1]):
            if int(clean[i, place]) != int(corrupted[i, place]):
                names = [role for role in pos if int(pos[role][i]) == place]
                found[i].add(names[0] if names else "other")
    return found
""",
    },
    "q6": {
        "a torch generator of its own": """
def draw_pairs(names, n, seed):
    rng = torch.Generator().manual_seed(seed)
    k = len(names)
    pairs = []
    for i in torch.randperm(k * (k - 1), generator=rng)[:n].tolist():
        io, s = divmod(i, k - 1)
        pairs.append((names[io], names[s + (s >= io)]))
    return pairs
""",
        "drawn again until new": """
def draw_pairs(names, n, seed):
    rng, pairs = random.Random(seed), []
    while len(pairs) < n:
        pair = tuple(rng.sample(names, 2))
        if pair not in pairs:
            pairs.append(pair)
    return pairs
""",
    },
    "q7": {
        "prompt by prompt": """
def margin(logits, end, io, names):
    out = torch.zeros(len(logits), dtype=logits.dtype)
    for i in range(len(logits)):
        row = logits[i, end[i]]
        rest = names[names != io[i]]
        out[i] = row[io[i]] - row[rest].max()
    return out
""",
        "from log probabilities": """
def margin(logits, end, io, names):
    rows = torch.arange(len(logits))
    logp = logits[rows, end].log_softmax(-1)
    others = logp[:, names].clone()
    others[io[:, None] == names] = float("-inf")
    return logp[rows, io] - others.max(dim=1).values
""",
        "numpy": """
import numpy as np

def margin(logits, end, io, names):
    rows = logits.numpy()[np.arange(len(logits)), end.numpy()]
    io, names = io.numpy(), names.numpy()
    others = np.where(names[None] == io[:, None], -np.inf, rows[:, names])
    return rows[np.arange(len(rows)), io] - others.max(axis=1)
""",
        "class": '''
class Margin:
    """IO against everybody else."""

    def others(self, row, io, names):
        return [row[name] for name in names.tolist() if name != io]

    def __call__(self, logits, end, io, names):
        pairs = [
            (logits[i, at], int(who))
            for i, (at, who) in enumerate(zip(end.tolist(), io))
        ]
        return torch.stack(
            [row[who] - max(self.others(row, who, names)) for row, who in pairs]
        )

margin = Margin()
''',
    },
    "q8": {
        "by hand": """
def balanced_mean(diff, abba):
    means, squares = [], 0.0
    for mask in (abba, abba.logical_not()):
        group = diff[mask]
        n, m = mask.sum(), group.mean()
        means.append(m)
        squares = squares + ((group - m) ** 2).sum() / (n - 1) / n
    return float(sum(means) / 2), float(0.5 * squares**0.5)
""",
    },
    "q9": {
        "summed over prompts": """
def scaled_map(patched, clean, corrupted):
    n = patched.shape[2]
    return (patched.sum(2) - corrupted.sum()) / (clean.sum() - corrupted.sum()) * n / n
""",
        "lambda": """
scaled_map = lambda patched, clean, corrupted: (
    (patched.mean(-1) - corrupted.mean()) / (clean - corrupted).mean()
)
""",
        "numpy": """
def scaled_map(patched, clean, corrupted):
    patched, clean, corrupted = (each.numpy() for each in (patched, clean, corrupted))
    return (patched.mean(axis=-1) - corrupted.mean()) / (
        clean.mean() - corrupted.mean()
    )
""",
    },
    "q10": {
        "prompt by prompt": """
def rise(who):
    total = 0.0
    for i in range(len(data)):
        both = set(data.answers[i].tolist())
        ids = [
            t
            for t in (model.to_single_token(" " + name) for name in data.names)
            if t not in both
        ]
        me = data.answers[i, who]
        total += (extra_at_end[i, me] - extra_at_end[i, ids].mean()) - (
            at_end[i, me] - at_end[i, ids].mean()
        )
    return total.item() / len(data)


q10_io = round(rise(0), 3)
q10_s = round(rise(1), 3)
q10_letter = "B"
""",
    },
}
