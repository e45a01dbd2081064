"""Wrong and restyled answers to assignment D."""

WRONG = {  # question -> name of the mistake -> (points lost, source of the answer cell)
    "q1": {
        "one mean over all templates and orders": (
            3,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [0 for record in reference]
    rows = [[i for i, kind in enumerate(kinds) if kind == 0] for record in data]
    return [
        torch.stack([cache[name][some].mean(dim=0) for some in rows]) for name in names
    ]
""",
        ),
        "orders mixed": (
            3,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [record.template for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == record.template]
        for record in data
    ]
    return [
        torch.stack([cache[name][some].mean(dim=0) for some in rows]) for name in names
    ]
""",
        ),
        "templates mixed": (
            2,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [record.order for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == record.order] for record in data
    ]
    return [
        torch.stack([cache[name][some].mean(dim=0) for some in rows]) for name in names
    ]
""",
        ),
        "mean over positions, too": (
            5,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [(record.template, record.order) for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == (record.template, record.order)]
        for record in data
    ]
    return [
        torch.stack(
            [
                cache[name][some]
                .mean(dim=(0, 1), keepdim=True)[0]
                .expand(data.tokens.shape[1], -1, -1)
                for some in rows
            ]
        )
        for name in names
    ]
""",
        ),
        "mean over the IOI prompts": (
            5,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(data.tokens, names_filter=names)
    kinds = [(record.template, record.order) for record in data]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == (record.template, record.order)]
        for record in data
    ]
    return [
        torch.stack([cache[name][some].mean(dim=0) for some in rows]) for name in names
    ]
""",
        ),
        "one reference prompt for the mean": (
            4,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [(record.template, record.order) for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == (record.template, record.order)]
        for record in data
    ]
    return [torch.stack([cache[name][some[0]] for some in rows]) for name in names]
""",
        ),
        "mean over heads": (
            5,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [(record.template, record.order) for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == (record.template, record.order)]
        for record in data
    ]
    return [
        torch.stack(
            [
                cache[name][some]
                .mean(dim=(0, 2), keepdim=True)[0]
                .expand(-1, model.cfg.n_heads, -1)
                for some in rows
            ]
        )
        for name in names
    ]
""",
        ),
        "a sum for a mean": (
            4,
            """
def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kinds = [(record.template, record.order) for record in reference]
    rows = [
        [i for i, kind in enumerate(kinds) if kind == (record.template, record.order)]
        for record in data
    ]
    return [
        torch.stack([cache[name][some].sum(dim=0) for some in rows]) for name in names
    ]
""",
        ),
        "the library's means": (
            5,
            """
def mean_outputs(model, data, reference):
    return reference_means(model, data, reference)
""",
        ),
    },
    "q2": {
        "zero for the mean": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else 0 * means[layer]
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (0 * means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "zero for the mean in K only": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (0 * means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "K out at all positions": (
            2,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[:, :, head] = (means[layer])[:, :, head]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "kept heads run at all positions": (
            3,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[:, :, head] = z[:, :, head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "padding taken for END": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[
                    rows,
                    torch.where(torch.tensor(role == "END"), -1, data.pos[role]),
                    head,
                ] = z[
                    rows,
                    torch.where(torch.tensor(role == "END"), -1, data.pos[role]),
                    head,
                ]
        for (at, head), role in out.items():
            if at == layer:
                new[
                    rows,
                    torch.where(torch.tensor(role == "END"), -1, data.pos[role]),
                    head,
                ] = (means[layer])[
                    rows,
                    torch.where(torch.tensor(role == "END"), -1, data.pos[role]),
                    head,
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "every prompt's position in every prompt": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[:, data.pos[role], head] = z[:, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[:, data.pos[role], head] = (means[layer])[:, data.pos[role], head]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "a node in both runs": (
            3,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (means[layer])[
                    rows, data.pos[role], head
                ]
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "an empty circuit taken for the model": (
            1,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = means[layer].clone() if keep else z.clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "MLPs frozen": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))
    _, cache = model.run_with_cache(
        data.tokens, names_filter=lambda name: name.endswith("hook_mlp_out")
    )

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    hooks += [(name, lambda value, hook: cache[hook.name]) for name in cache]
    return logit_diff(
        model.run_with_hooks(data.tokens, fwd_hooks=hooks), data, per_prompt=True
    )
""",
        ),
        "mean over prompts": (
            5,
            """
def run_parts(model, data, keep, out, means):
    rows = torch.arange(len(data))

    def knock(z, hook):
        layer = hook.layer()
        new = z.clone() if keep is None else means[layer].clone()
        for (at, head), role in (keep or {}).items():
            if at == layer:
                new[rows, data.pos[role], head] = z[rows, data.pos[role], head]
        for (at, head), role in out.items():
            if at == layer:
                new[rows, data.pos[role], head] = (means[layer])[
                    rows, data.pos[role], head
                ]
        return new

    hooks = [
        (f"blocks.{layer}.attn.hook_z", knock) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(model.run_with_hooks(data.tokens, fwd_hooks=hooks), data)
""",
        ),
        "the library's knock-out": (
            5,
            """
def run_parts(model, data, keep, out, means):
    return knock_out(model, data, [out], keep, means=means)[0]
""",
        ),
    },
    "q3": {
        "mean of ratios": (
            2,
            """
def kept_share(circuit, model):
    share = (circuit / model).mean()
    error = (
        (circuit - circuit.mean() / model.mean() * model).std()
        / len(model) ** 0.5
        / model.mean().abs()
    )
    return float(share), float(error)
""",
        ),
        "ends swapped": (
            3,
            """
def kept_share(circuit, model):
    share = model.mean() / circuit.mean()
    error = (circuit - share * model).std() / len(model) ** 0.5 / model.mean().abs()
    return float(share), float(error)
""",
        ),
        "not paired": (
            1,
            """
def kept_share(circuit, model):
    share = circuit.mean() / model.mean()
    error = circuit.std() / len(model) ** 0.5 / model.mean().abs()
    return float(share), float(error)
""",
        ),
        "deviation for the error": (
            1,
            """
def kept_share(circuit, model):
    share = circuit.mean() / model.mean()
    error = (circuit - share * model).std() / model.mean().abs()
    return float(share), float(error)
""",
        ),
        "the gap's error": (
            1,
            """
def kept_share(circuit, model):
    share = circuit.mean() / model.mean()
    error = (circuit - model).std() / len(model) ** 0.5 / model.mean().abs()
    return float(share), float(error)
""",
        ),
        "divided by n, not n - 1": (
            1,
            """
def kept_share(circuit, model):
    share = circuit.mean() / model.mean()
    error = (
        (circuit - share * model).std(correction=0)
        / len(model) ** 0.5
        / model.mean().abs()
    )
    return float(share), float(error)
""",
        ),
        "a negative error": (
            1,
            """
def kept_share(circuit, model):
    share = circuit.mean() / model.mean()
    error = (circuit - share * model).std() / len(model) ** 0.5 / model.mean()
    return float(share), float(error)
""",
        ),
        "the gap for the share": (
            3,
            """
def kept_share(circuit, model):
    share = model.mean() - circuit.mean()
    error = (circuit - share * model).std() / len(model) ** 0.5 / model.mean().abs()
    return float(share), float(error)
""",
        ),
    },
    "q4": {
        "classes not put back": (
            4,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    out = {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        out |= nodes(circuit, heads)
        found[name] = run(keep, out).mean().item(), run(None, out).mean().item()
    return found
""",
        ),
        "K taken from the circuit only": (
            1,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        found[name] = (
            run(keep, nodes(circuit, heads)).mean().item(),
            run(None, {}).mean().item(),
        )
    return found
""",
        ),
        "K out at END, whatever the class": (
            4,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        out = {head: "END" for head in heads}
        found[name] = run(keep, out).mean().item(), run(None, out).mean().item()
    return found
""",
        ),
        "model first": (
            4,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        out = nodes(circuit, heads)
        found[name] = run(None, out).mean().item(), run(keep, out).mean().item()
    return found
""",
        ),
        "the gap, not the pair": (
            4,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        out = nodes(circuit, heads)
        found[name] = (run(keep, out) - run(None, out)).mean().abs().item()
    return found
""",
        ),
        "K alone kept": (
            3,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        some = nodes(circuit, heads)
        found[name] = run(some, {}).mean().item(), run(None, some).mean().item()
    return found
""",
        ),
        "without the empty set": (
            4,
            """
def by_class(run, circuit):
    keep, found = nodes(circuit), {}
    for name, heads in [("none", ()), *circuit.roles.items()]:
        if heads:
            out = nodes(circuit, heads)
            found[name] = run(keep, out).mean().item(), run(None, out).mean().item()
    return found
""",
        ),
    },
    "q5": {
        "what is left for what is lost": (
            3,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": left(movers),
    "lost without backups": left(backups),
    "lost without both": left(movers + backups),
    "least is left without": "S-inhibition",
    "more than before without": "negative name mover",
    "reading": "B",
}
""",
        ),
        "losses of the circuit, not of the model": (
            2,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": 1 - left(movers, nodes(PAPER)),
    "lost without backups": 1 - left(backups, nodes(PAPER)),
    "lost without both": 1 - left(movers + backups, nodes(PAPER)),
    "least is left without": "S-inhibition",
    "more than before without": "negative name mover",
    "reading": "B",
}
""",
        ),
        "losses thought to add up": (
            3,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": 1 - left(movers),
    "lost without backups": 1 - left(backups),
    "lost without both": 2 - left(movers) - left(backups),
    "least is left without": "S-inhibition",
    "more than before without": "negative name mover",
    "reading": "A",
}
""",
        ),
        "wrong reading": (
            1,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": 1 - left(movers),
    "lost without backups": 1 - left(backups),
    "lost without both": 1 - left(movers + backups),
    "least is left without": "S-inhibition",
    "more than before without": "negative name mover",
    "reading": "C",
}
""",
        ),
        "name movers thought to be decisive": (
            1,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": 1 - left(movers),
    "lost without backups": 1 - left(backups),
    "lost without both": 1 - left(movers + backups),
    "least is left without": "name mover",
    "more than before without": "negative name mover",
    "reading": "B",
}
""",
        ),
        "backups thought to be in the way": (
            1,
            """
movers, backups = PAPER.roles["name mover"], PAPER.roles["backup name mover"]


def left(heads, keep=None):
    return (measure(keep, nodes(PAPER, heads)).mean() / measure().mean()).item()


worth = {
    "lost without name movers": 1 - left(movers),
    "lost without backups": 1 - left(backups),
    "lost without both": 1 - left(movers + backups),
    "least is left without": "S-inhibition",
    "more than before without": "backup name mover",
    "reading": "B",
}
""",
        ),
    },
    "q6": {
        "K empty only": (
            5,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[]]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, out).mean()
                    ).item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "signed change": (
            5,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others), others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                (
                    run(keep, out | {head: keep[head]}).mean() - run(keep, out).mean()
                ).item(),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "measured against F(C)": (
            5,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others), others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, {}).mean()
                    ).item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "the head in its own K": (
            3,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others), others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some) | {head},
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, out).mean()
                    ).item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "smallest change": (
            5,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others), others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, out).mean()
                    ).item()
                ),
            )
        )
    return min(found, key=lambda pair: pair[1])
""",
        ),
        "single heads only": (
            4,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others)]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, out).mean()
                    ).item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "all others only": (
            4,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (
                        run(keep, out | {head: keep[head]}).mean()
                        - run(keep, out).mean()
                    ).item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
        "mean of the prompts' changes in size": (
            4,
            """
def best_witness(run, keep, head, pool):
    others, found = [h for h in pool if h != head], []
    for some in [[], *([h] for h in others), others]:
        out = {h: keep[h] for h in some}
        found.append(
            (
                set(some),
                abs(
                    (run(keep, out | {head: keep[head]}) - run(keep, out))
                    .abs()
                    .mean()
                    .item()
                ),
            )
        )
    return max(found, key=lambda pair: pair[1])
""",
        ),
    },
    "q7": {
        "mean of ratios": (
            2,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, prompts)
        alone = run_circuit(model, data, keep, means)
        shares[name] = (alone / whole).mean().item()
    return shares
""",
        ),
        "upside down": (
            2,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, prompts)
        alone = run_circuit(model, data, keep, means)
        shares[name] = (whole.mean() / alone.mean()).item()
    return shares
""",
        ),
        "what is lost, not what is kept": (
            2,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, prompts)
        alone = run_circuit(model, data, keep, means)
        shares[name] = 1 - (alone.mean() / whole.mean()).item()
    return shares
""",
        ),
        "the library's own reference": (
            3,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, None)
        alone = run_circuit(model, data, keep, means)
        shares[name] = (alone.mean() / whole.mean()).item()
    return shares
""",
        ),
        "the data as its own reference": (
            3,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, data)
        alone = run_circuit(model, data, keep, means)
        shares[name] = (alone.mean() / whole.mean()).item()
    return shares
""",
        ),
        "the circuit ignored": (
            3,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, prompts)
        alone = run_circuit(model, data, {}, means)
        shares[name] = (alone.mean() / whole.mean()).item()
    return shares
""",
        ),
        "each prompt's share": (
            3,
            """
def share_by_reference(model, data, keep, references):
    whole, shares = logit_diff(model(data.tokens), data, per_prompt=True), {}
    for name, prompts in references.items():
        means = reference_means(model, data, prompts)
        alone = run_circuit(model, data, keep, means)
        shares[name] = alone / whole
    return shares
""",
        ),
    },
    "q8": {
        "a better estimate, one could think": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": {"duplicate token", "induction", "S-inhibition"},
    "reason": "A",
}
""",
        ),
        "the scale, one could think": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": {"duplicate token", "induction", "S-inhibition"},
    "reason": "C",
}
""",
        ),
        "references exchanged": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(ioi_means),
    "late with IOI": kept(means),
    "no longer missed": {"duplicate token", "induction", "S-inhibition"},
    "reason": "B",
}
""",
        ),
        "previous token heads counted in": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": {
        "previous token",
        "duplicate token",
        "induction",
        "S-inhibition",
    },
    "reason": "B",
}
""",
        ),
        "S-inhibition forgotten": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": {"duplicate token", "induction"},
    "reason": "B",
}
""",
        ),
        "the whole circuit for the late one": (
            1,
            """
def kept(some):
    return (
        run_circuit(model, data, nodes(PAPER), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": {"duplicate token", "induction", "S-inhibition"},
    "reason": "B",
}
""",
        ),
    },
    "q9": {
        "control without a clause": (
            3,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(record)
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "control repeats S": (
            3,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, record.S, rng.choice(others)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "control may draw IO and S": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = list(data.names)
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *rng.sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "the same two names in every control": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *others[:2]))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "one generator per prompt, same seed": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        rng = random.Random(seed)
        others = [n for n in data.names if n not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *random.Random(0).sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "the seed without effect": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(0), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *rng.sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "one name twice in the control": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *[rng.choice(others)] * 2))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "S before IO": (
            2,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.S, record.IO))
        control.append(insert(record, *rng.sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "the clause before the place": (
            4,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            template=(f"One day {first} and {second} had a good time. ")
            + record.template,
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *rng.sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
        "IO and S changed in the record": (
            4,
            """
def both_and_control(model, data, seed):
    rng, both, control = random.Random(seed), [], []

    def insert(record, first, second):
        return replace(
            record,
            IO=record.S,
            S=record.IO,
            template=record.template.replace(
                "[PLACE]", f"[PLACE], where {first} and {second} had a good time"
            ),
        )

    for record in data:
        others = [name for name in data.names if name not in record.names]
        both.append(insert(record, record.IO, record.S))
        control.append(insert(record, *rng.sample(others, 2)))
    return IOIDataset.from_prompts(model, both), IOIDataset.from_prompts(model, control)
""",
        ),
    },
    "q10": {
        "compared with the plain sentence": (
            2,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.4,
    0.9,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, twelve)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "upside down": (
            2,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.4,
    0.9,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (b.mean() / a.mean()).item(),
    bootstrap(lambda x, y: y.mean() / x.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "mean of ratios": (
            2,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.4,
    0.9,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (a / b).mean().item(), bootstrap(lambda x: x.mean(), a / b)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "the interval of the difference in logits": (
            1,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.4,
    0.9,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: (x - y).mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "bounds that nothing contradicts": (
            2,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    -1.0,
    2.0,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "no reason": (
            1,
            """
because, low, high = "I think so.", 0.4, 0.9
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "verdict by the share alone": (
            1,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.55,
    0.9,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = "held" if low < share < high else "failed"
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
        "called held although it failed": (
            1,
            """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.1,
    0.4,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = "held"
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        ),
    },
}

RESTYLED = {  # question -> style -> source: full marks
    "q1": {
        "sums by index_add, layer by layer": """
def mean_outputs(model, data, reference):
    kinds = sorted({(r.template, r.order) for r in reference})
    number = {kind: i for i, kind in enumerate(kinds)}
    of_reference = torch.tensor([number[r.template, r.order] for r in reference])
    of_data = torch.tensor([number[r.template, r.order] for r in data])
    found = []
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.attn.hook_z"
        z = model.run_with_cache(reference.tokens, names_filter=name)[1][name]
        total = torch.zeros(len(kinds), *z.shape[1:], dtype=z.dtype).index_add_(
            0, of_reference, z
        )
        count = torch.bincount(of_reference, minlength=len(kinds))
        found.append((total / count[:, None, None, None])[of_data])
    return found
""",
        "numpy": """
import numpy as np


def mean_outputs(model, data, reference):
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(reference.tokens, names_filter=names)
    kind = lambda record: f"{record.order} {record.template}"
    kinds = np.array([kind(record) for record in reference])
    rows = [np.flatnonzero(kinds == kind(record)) for record in data]
    return [
        np.stack([cache[name].detach().numpy()[some].mean(axis=0) for some in rows])
        for name in names
    ]
""",
        "class": '''
class Kinds(dict):
    """The rows of a dataset by template and order."""

    def __init__(self, data):
        for i, record in enumerate(data):
            self.setdefault((record.template, record.order), []).append(i)

class MeanOutputs:
    def __call__(self, model, data, reference):
        kinds, means = Kinds(reference), []
        for layer in range(model.cfg.n_layers):
            name = f"blocks.{layer}.attn.hook_z"
            _, cache = model.run_with_cache(
                reference.tokens, names_filter=lambda other: other == name
            )
            of = {kind: cache[name][rows].mean(0) for kind, rows in kinds.items()}
            means.append(
                torch.stack([of[record.template, record.order] for record in data])
            )
        return means

mean_outputs = MeanOutputs()
''',
    },
    "q2": {
        "with a mask made beforehand": """
def run_parts(model, data, keep, out, means):
    alive = torch.full(
        (model.cfg.n_layers, *data.tokens.shape, model.cfg.n_heads, 1), keep is None
    )
    for (layer, head), role in (keep or {}).items():
        alive[layer, range(len(data)), data.pos[role], head] = True
    for (layer, head), role in out.items():
        alive[layer, range(len(data)), data.pos[role], head] = False

    def blend(z, hook):
        return torch.where(alive[hook.layer()], z, means[hook.layer()])

    with model.hooks(
        fwd_hooks=[
            (f"blocks.{i}.attn.hook_z", blend) for i in range(model.cfg.n_layers)
        ]
    ):
        logits = model(data.tokens)
    at_end = logits[torch.arange(len(data)), data.pos["END"]]
    return at_end.gather(1, data.answers).diff(dim=1)[:, 0].neg()
""",
    },
    "q3": {
        "numpy": """
def kept_share(circuit, model):
    c, m = circuit.numpy(), model.numpy()
    ratio = c.sum() / m.sum()
    rest = c - ratio * m
    return ratio, (rest.var(ddof=1) / len(m)) ** 0.5 / abs(m.mean())
""",
        "lambda": """
kept_share = lambda circuit, model, mean=lambda x: sum(x) / len(x): (
    mean(circuit) / mean(model),
    (
        sum((c - mean(circuit) / mean(model) * m) ** 2 for c, m in zip(circuit, model))
        / (len(model) - 1)
        / len(model)
    )
    ** 0.5
    / abs(mean(model)),
)
""",
    },
    "q4": {
        "smaller circuits for C without K": """
def by_class(run, circuit):
    every = nodes(circuit)
    pairs = {"none": [run(every, {}), run(None, {})]}
    for role in circuit.roles:
        gone = {head: circuit.positions[role] for head in circuit.roles[role]}
        rest = {head: at for head, at in every.items() if head not in gone}
        pairs[role] = [run(rest, {}), run(None, gone)]
    return {
        name: tuple(float(diffs.mean()) for diffs in pair)
        for name, pair in pairs.items()
    }
""",
        "lambda": """
pair = lambda run, circuit, out: (
    float(run(nodes(circuit), out).mean()),
    float(run(None, out).mean()),
)
by_class = lambda run, circuit: {
    name: pair(run, circuit, nodes(circuit, heads) if heads else {})
    for name, heads in [("none", None), *circuit.roles.items()]
}
""",
    },
    "q6": {
        "a dictionary of candidates": """
def best_witness(run, keep, head, pool):
    rest = tuple(other for other in pool if other != head)
    candidates = {(): 0.0, rest: 0.0} | {(other,): 0.0 for other in rest}
    for others in candidates:
        inside = {node: role for node, role in keep.items() if node not in others}
        without = {node: role for node, role in inside.items() if node != head}
        candidates[others] = float(
            (run(inside, {}).mean() - run(without, {}).mean()).abs()
        )
    best = max(candidates, key=candidates.get)
    return frozenset(best), candidates[best]
""",
        "class": """
class Search:
    def __init__(self, run, keep, head):
        self.run, self.keep, self.head = run, keep, head

    def change(self, others):
        out = {each: self.keep[each] for each in others}
        both = (
            self.run(self.keep, out),
            self.run(self.keep, {**out, self.head: self.keep[self.head]}),
        )
        return abs(float(both[1].mean() - both[0].mean()))


class BestWitness:
    def __call__(self, run, keep, head, pool):
        search, rest = Search(run, keep, head), frozenset(pool) - {head}
        some = {frozenset(), rest, *(frozenset([one]) for one in rest)}
        best = max(some, key=search.change)
        return best, search.change(best)


best_witness = BestWitness()
""",
        "slow but right": """
def best_witness(run, keep, head, pool):
    others = [each for each in pool if each != head]
    candidates = [[]] + [[each] for each in others] + [others]
    for _ in range(5):
        best, most = None, -1.0
        for some in candidates:
            out = {}
            for each in some:
                out[each] = keep[each]
            before = run(dict(keep), dict(out)).mean()
            out[head] = keep[head]
            change = abs(float(run(dict(keep), out).mean() - before))
            if change > most:
                best, most = set(some), change
    return best, most
""",
    },
    "q7": {
        "by knock_out, in a comprehension": """
def share_by_reference(model, data, keep, references):
    def share(prompts):
        means = reference_means(model, data, prompts)
        circuit, whole = (
            knock_out(model, data, [{}], part, means=means)[0].mean()
            for part in (keep, None)
        )
        return circuit / whole

    return {name: share(prompts) for name, prompts in references.items()}
""",
        "slow but right": """
def share_by_reference(model, data, keep, references):
    shares = {}
    for name in references:
        means = reference_means(model, data, references[name])
        diffs = [
            run_circuit(model, data, keep, means).tolist()[i] for i in range(len(data))
        ]
        whole = [
            logit_diff(model(data.tokens), data, per_prompt=True).tolist()[i]
            for i in range(len(data))
        ]
        shares[name] = sum(diffs) / sum(whole)
    return shares
""",
    },
    "q8": {
        "a list of classes": """
def kept(some):
    return (
        run_circuit(model, data, nodes(late), some).mean() / measure().mean()
    ).item()


wrong_reference = {
    "late with ABC": kept(means),
    "late with IOI": kept(ioi_means),
    "no longer missed": ["S-inhibition", "induction", "duplicate token"],
    "reason": "B",
}
""",
    },
    "q9": {
        "two lists, shuffled names": """
def both_and_control(model, data, seed):
    generator = random.Random(seed)

    def with_clause(record, names):
        before, after = record.template.split("[PLACE]")
        return replace(
            record,
            template=f"{before}[PLACE], where {names[0]} and "
            f"{names[1]} had a good time{after}",
        )

    pairs = []
    for record in data.records:
        pool = sorted(set(data.names) - {record.IO, record.S})
        generator.shuffle(pool)
        pairs.append(pool[:2])
    both = [with_clause(record, (record.IO, record.S)) for record in data.records]
    control = [
        with_clause(record, pair)
        for record, pair in zip(data.records, pairs, strict=True)
    ]
    return tuple(IOIDataset.from_prompts(model, records) for records in (both, control))
""",
    },
    "q10": {
        "a prediction that fails": """
because, low, high = (
    (
        "Both names are marked and both marks are read, so the name movers avoid both "
        "and little is left of it all."
    ),
    0.0,
    0.3,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
        "an open one": """
because, low, high = (
    (
        "S-inhibition heads find both names marked and mostly read the later mention, "
        "S, so the name movers avoid S."
    ),
    0.2,
    0.65,
)
a, b = (
    logit_diff(model(prompts.tokens), prompts, per_prompt=True)
    for prompts in (repeated, harmless)
)
share, interval = (
    (a.mean() / b.mean()).item(),
    bootstrap(lambda x, y: x.mean() / y.mean(), a, b),
)
verdict = Prediction("share left", because, low, high).test(share, interval).verdict
tried = {
    "because": because,
    "low": low,
    "high": high,
    "share": share,
    "interval": interval,
    "verdict": verdict,
}
""",
    },
}
