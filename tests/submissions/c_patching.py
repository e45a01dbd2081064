"""Wrong and restyled answers to assignment C."""

WRONG = {  # question -> name of the mistake -> (points lost, source of the answer cell)
    "q1": {
        "one activation under all names": (
            2,
            """
def record(model, data, names):
    kept, hooks = {}, []
    for name in names:

        def note(value, hook):
            kept[name] = value.clone()

        hooks.append((name, note))
    logits = model.run_with_hooks(data.tokens, fwd_hooks=hooks)
    return logit_diff(logits, data, per_prompt=True), kept
""",
        ),
        "the other name of a hook point": (
            2,
            """
def record(model, data, names):
    kept = {}

    def note(value, hook):
        kept[hook.name] = value.clone()

    logits = model.run_with_hooks(
        data.tokens, fwd_hooks=[(name, note) for name in names]
    )
    return logit_diff(logits, data, per_prompt=True), kept
""",
        ),
        "padding taken for END": (
            2,
            """
def record(model, data, names):
    logits, cache = model.run_with_cache(data.tokens, names_filter=names)
    last = logits[:, -1]
    return logit_diff(last, data, per_prompt=True), {
        name: cache[name] for name in names
    }
""",
        ),
        "mean over prompts": (
            2,
            """
def record(model, data, names):
    logits, cache = model.run_with_cache(data.tokens, names_filter=names)
    return logit_diff(logits, data), {name: cache[name] for name in names}
""",
        ),
        "a hook left on the model": (
            2,
            """
def record(model, data, names):
    kept = {}
    for name in names:
        model.add_hook(
            name, lambda value, hook, name=name: kept.__setitem__(name, value.clone())
        )
    return logit_diff(model(data.tokens), data, per_prompt=True), kept
""",
        ),
    },
    "q2": {
        "clean and corrupted exchanged": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(corrupted.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, clean.pos[role]] = cache[name][rows, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(clean.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "all positions patched": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[:, :] = cache[name][:, :]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "corrupted prompts' answers": (
            3,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, clean.pos[role]] = cache[name][rows, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, corrupted, per_prompt=True)
""",
        ),
        "all prompts' positions in every prompt": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[:, clean.pos[role]] = cache[name][:, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "position of the role in the corrupted prompt": (
            1,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, corrupted.pos[role]] = cache[name][rows, corrupted.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "after the layer": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_post"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, clean.pos[role]] = cache[name][rows, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "patched from the corrupted run itself": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(corrupted.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, clean.pos[role]] = cache[name][rows, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "padding taken for END": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows = torch.arange(len(clean))

    def patch(resid, hook):
        resid = resid.clone()
        resid[rows, clean.pos[role]] = cache[name][rows, clean.pos[role]]
        return resid

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits[:, -1], clean, per_prompt=True)
""",
        ),
        "the library's sweep": (
            4,
            """
def patch_stream(model, clean, corrupted, layer, role):
    roles = ["IO", "S1", "S1+1", "S2", "END"]
    return (
        sweep(model, clean, corrupted, "resid_pre")
        .by_role()
        .per_prompt[layer, roles.index(role)]
    )
""",
        ),
    },
    "q3": {
        "a loop's last values": (
            3,
            """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    rows, at, hooks = torch.arange(len(clean)), clean.pos[role], []
    for layer, head in heads:
        name = f"blocks.{layer}.attn.hook_z"

        def patch(z, hook):
            z = z.clone()
            z[rows, at, head] = cache[name][rows, at, head]
            return z

        hooks.append((name, patch))
    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks)
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "one head per layer": (
            3,
            """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    rows, at, hooks = torch.arange(len(clean)), clean.pos[role], []
    for layer, head in dict(heads).items():

        def patch(z, hook, head=head):
            z = z.clone()
            z[rows, at, head] = cache[hook.name][rows, at, head]
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", patch))
    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks)
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "a sum of single patches": (
            3,
            """
def patch_heads(model, clean, corrupted, heads, role):
    rows, at = torch.arange(len(clean)), clean.pos[role]
    _, cache = model.run_with_cache(clean.tokens)
    before = logit_diff(model(corrupted.tokens), clean, per_prompt=True)
    total = before.clone()
    for layer, head in heads:

        def patch(z, hook, head=head):
            z[rows, at, head] = cache[hook.name][rows, at, head]
            return z

        logits = model.run_with_hooks(
            corrupted.tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", patch)]
        )
        total += logit_diff(logits, clean, per_prompt=True) - before
    return total
""",
        ),
        "all positions patched": (
            4,
            """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    rows, at, hooks = torch.arange(len(clean)), clean.pos[role], []
    for layer, head in heads:

        def patch(z, hook, head=head):
            z[:, :, head] = cache[hook.name][:, :, head]
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", patch))
    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks)
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "after W_O, where heads are one": (
            4,
            """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    rows, at, hooks = torch.arange(len(clean)), clean.pos[role], []
    for layer, _ in heads:

        def patch(out, hook):
            out = out.clone()
            out[rows, at] = cache[hook.name][rows, at]
            return out

        hooks.append((f"blocks.{layer}.hook_attn_out", patch))
    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks)
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "position and head exchanged": (
            4,
            """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    rows, at, hooks = torch.arange(len(clean)), clean.pos[role], []
    for layer, head in heads:

        def patch(z, hook, head=head):
            z[rows, head] = cache[hook.name][rows, head]
            return z

        hooks.append((f"blocks.{layer}.attn.hook_z", patch))
    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks)
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
    },
    "q4": {
        "ends swapped": (
            3,
            """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    diffs = torch.stack(
        [torch.stack([patch(i, role) for role in roles]) for i in range(n_layers)]
    )
    return (clean_diff.mean() - diffs.mean(-1)) / (
        clean_diff.mean() - corrupted_diff.mean()
    )
""",
        ),
        "mean of ratios": (
            3,
            """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    diffs = torch.stack(
        [torch.stack([patch(i, role) for role in roles]) for i in range(n_layers)]
    )
    return ((diffs - corrupted_diff) / (clean_diff - corrupted_diff)).mean(-1)
""",
        ),
        "divided by the clean run": (
            3,
            """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    diffs = torch.stack(
        [torch.stack([patch(i, role) for role in roles]) for i in range(n_layers)]
    )
    return (diffs - corrupted_diff).mean(-1) / clean_diff.mean()
""",
        ),
        "axes swapped": (
            3,
            """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    diffs = torch.stack(
        [torch.stack([patch(i, role) for role in roles]) for i in range(n_layers)]
    )
    values = (diffs.mean(-1) - corrupted_diff.mean()) / (
        clean_diff.mean() - corrupted_diff.mean()
    )
    return values.T
""",
        ),
        "mean over roles": (
            3,
            """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    diffs = torch.stack(
        [torch.stack([patch(i, role) for role in roles]) for i in range(n_layers)]
    )
    return (diffs.mean(1) - corrupted_diff.mean()) / (
        clean_diff.mean() - corrupted_diff.mean()
    )
""",
        ),
    },
    "q5": {
        "destination taken for head in the pattern": (
            1,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (every, every, index)

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "all heads of the layer": (
            4,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (every,)

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "clean and corrupted exchanged": (
            4,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(corrupted.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (every, index) if part == "pattern" else (every, every, index)

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(clean.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "END only": (
            4,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (
        (rows, index, clean.pos["END"])
        if part == "pattern"
        else (rows, clean.pos["END"], index)
    )

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "position taken for head": (
            3,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (every, index)

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
        "a head counted from 1": (
            4,
            """
def patch_part(model, clean, corrupted, head, part):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_{part}"
    _, cache = model.run_with_cache(clean.tokens, names_filter=[name])
    rows, every = torch.arange(len(clean)), slice(None)
    where = (every, index - 1) if part == "pattern" else (every, every, index - 1)

    def patch(value, hook):
        value = value.clone()
        value[where] = cache[name][where]
        return value

    logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, patch)])
    return logit_diff(logits, clean, per_prompt=True)
""",
        ),
    },
    "q6": {
        "S-inhibition heads by their pattern": (
            2,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "S2"),
    (5, 5, "pattern", "S2"),
    (7, 9, "pattern", "END"),
    (8, 10, "pattern", "END"),
    (9, 6, "pattern", "END"),
    (10, 7, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (part, parts[part][layer, head].item(), role)
""",
        ),
        "everything at END": (
            1,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "END"),
    (5, 5, "pattern", "END"),
    (7, 9, "v", "END"),
    (8, 10, "v", "END"),
    (9, 6, "pattern", "END"),
    (10, 7, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (part, parts[part][layer, head].item(), role)
""",
        ),
        "patched the other way": (
            2,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "S2"),
    (5, 5, "pattern", "S2"),
    (7, 9, "v", "END"),
    (8, 10, "v", "END"),
    (9, 6, "pattern", "END"),
    (10, 7, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (
        part,
        1 - parts[part][layer, head].item(),
        role,
    )
""",
        ),
        "in logits, not on the scale": (
            2,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "S2"),
    (5, 5, "pattern", "S2"),
    (7, 9, "v", "END"),
    (8, 10, "v", "END"),
    (9, 6, "pattern", "END"),
    (10, 7, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (
        part,
        sweep(model, clean, corrupted, part).change[layer, head].item(),
        role,
    )
""",
        ),
        "induction heads by their values": (
            2,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "S2"),
    (5, 5, "v", "S2"),
    (7, 9, "v", "END"),
    (8, 10, "v", "END"),
    (9, 6, "pattern", "END"),
    (10, 7, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (part, parts[part][layer, head].item(), role)
""",
        ),
        "a head forgotten": (
            3,
            """
parts = {
    part: sweep(model, clean, corrupted, part).values for part in ("pattern", "v", "z")
}
where_or_what = {}
for layer, head, part, role in (
    (3, 0, "pattern", "S2"),
    (5, 5, "pattern", "S2"),
    (7, 9, "v", "END"),
    (8, 10, "v", "END"),
    (9, 6, "pattern", "END"),
):
    where_or_what[f"L{layer}H{head}"] = (part, parts[part][layer, head].item(), role)
""",
        ),
    },
    "q7": {
        "the two directions taken for one": (
            2,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, clean)
    return (up - bottom) / (top - bottom), 1 - (up - bottom) / (top - bottom)
""",
        ),
        "what is left, not what is lost": (
            2,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, clean)
    return (up - bottom) / (top - bottom), 1 - (top - down) / (top - bottom)
""",
        ),
        "the other prompts' answers in the clean run": (
            2,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, other)
    return (up - bottom) / (top - bottom), (top - down) / (top - bottom)
""",
        ),
        "restored and lost exchanged": (
            4,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, clean)
    return (top - down) / (top - bottom), (up - bottom) / (top - bottom)
""",
        ),
        "divided by the clean run": (
            4,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, clean)
    return (up - bottom) / top, (top - down) / top
""",
        ),
        "in logits": (
            4,
            """
def both_ways(model, clean, other, head):
    layer, index = head
    name = f"blocks.{layer}.attn.hook_z"

    def mean_diff(into, source, answers):
        _, cache = model.run_with_cache(source.tokens, names_filter=[name])

        def patch(z, hook):
            z[:, :, index] = cache[name][:, :, index]
            return z

        return logit_diff(
            model.run_with_hooks(into.tokens, fwd_hooks=[(name, patch)]), answers
        ).item()

    top, bottom = (
        logit_diff(model(data.tokens), clean).item() for data in (clean, other)
    )
    up, down = mean_diff(other, clean, clean), mean_diff(clean, other, clean)
    return up - bottom, top - down
""",
        ),
    },
    "q8": {
        "suffices and needed exchanged": (
            1,
            """
up = sweep(model, clean, abc, "z", into="corrupted").values
down = 1 - sweep(model, clean, abc, "z", into="clean").values
words = {
    "L4H11": "suffices",
    "L3H0": "suffices",
    "L8H10": "suffices",
    "L9H9": "needed",
    "L9H6": "needed",
    "L10H7": "hinders",
}
two_ways = {}
for name, word in words.items():
    layer, head = map(int, name[1:].split("H"))
    two_ways[name] = (up[layer, head].item(), down[layer, head].item(), word)
""",
        ),
        "the strongest head must be needed": (
            1,
            """
up = sweep(model, clean, abc, "z", into="corrupted").values
down = 1 - sweep(model, clean, abc, "z", into="clean").values
words = {
    "L4H11": "needed",
    "L3H0": "needed",
    "L8H10": "needed",
    "L9H9": "needed",
    "L9H6": "suffices",
    "L10H7": "hinders",
}
two_ways = {}
for name, word in words.items():
    layer, head = map(int, name[1:].split("H"))
    two_ways[name] = (up[layer, head].item(), down[layer, head].item(), word)
""",
        ),
        "what is left for what is lost": (
            2,
            """
up = sweep(model, clean, abc, "z", into="corrupted").values
down = 1 - sweep(model, clean, abc, "z", into="clean").values
words = {
    "L4H11": "needed",
    "L3H0": "needed",
    "L8H10": "needed",
    "L9H9": "suffices",
    "L9H6": "suffices",
    "L10H7": "hinders",
}
two_ways = {}
for name, word in words.items():
    layer, head = map(int, name[1:].split("H"))
    two_ways[name] = (up[layer, head].item(), 1 - down[layer, head].item(), word)
""",
        ),
        "one direction for both": (
            2,
            """
up = sweep(model, clean, abc, "z", into="corrupted").values
down = 1 - sweep(model, clean, abc, "z", into="clean").values
words = {
    "L4H11": "needed",
    "L3H0": "needed",
    "L8H10": "needed",
    "L9H9": "suffices",
    "L9H6": "suffices",
    "L10H7": "hinders",
}
two_ways = {}
for name, word in words.items():
    layer, head = map(int, name[1:].split("H"))
    two_ways[name] = (up[layer, head].item(), up[layer, head].item(), word)
""",
        ),
    },
    "q9": {
        "MLPs always frozen": (
            2,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
        "MLPs always recomputed": (
            1,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
        "heads not frozen": (
            4,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    _, new = model.run_with_cache(source.tokens)

    def put(z, hook, head):
        z[:, :, head] = new[hook.name][:, :, head]
        return z

    hooks = [
        (f"blocks.{layer}.attn.hook_z", partial(put, head=head))
        for layer, head in senders
    ]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
        "the first sender only": (
            1,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    if mlps == "frozen":
        names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders[:1]:
        held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
        "the sender's whole layer": (
            4,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    if mlps == "frozen":
        names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        held[names[layer]] = new[names[layer]]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
        "source prompts' answers": (
            4,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    if mlps == "frozen":
        names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), source, per_prompt=True
    )
""",
        ),
        "the sender's layer left free": (
            4,
            """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    if mlps == "frozen":
        names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    hooks = [
        (name, lambda value, hook: held[hook.name])
        for name in [
            name for i, name in enumerate(names) if i not in [at for at, _ in senders]
        ]
    ]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        ),
    },
    "q10": {
        "the final LayerNorm's scale held": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(
        model.unembed(
            (final - final.mean(-1, keepdim=True))
            / old["ln_final.hook_scale"][rows, end]
        ),
        base,
        per_prompt=True,
    )
""",
        ),
        "z taken for a part of the stream": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end].flatten(1)
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "W_O of head 0": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end, head] @ model.W_O[layer, 0]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "old minus new": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (old[z] - new[z])[rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "old message not taken away": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = new[z][rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "no final LayerNorm": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(final), base, per_prompt=True)
""",
        ),
        "the last position for END": (
            2,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), -1
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "stream before the last layer": (
            3,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    rows, end = torch.arange(len(base)), base.pos["END"]
    z = f"blocks.{layer}.attn.hook_z"
    change = (new[z] - old[z])[rows, end, head] @ model.W_O[layer, head]
    final = old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_pre"][rows, end] + change
    return logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
""",
        ),
        "a run after all": (
            2,
            """
def direct_edge(model, base, old, new, sender):
    layer, head = sender
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    held = {name: old[name].clone() for name in names}
    held[names[layer]][:, :, head] = new[names[layer]][:, :, head]
    logits = model.run_with_hooks(
        base.tokens,
        fwd_hooks=[(name, lambda value, hook: held[hook.name]) for name in names],
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
    },
    "q11": {
        "MLPs frozen on the way": (
            4,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [
        f"blocks.{i}.{site}"
        for i in range(model.cfg.n_layers)
        for site in ("attn.hook_z", "hook_mlp_out")
    ]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers:
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "other heads not held": (
            4,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(at, lambda value, hook: held[hook.name])]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers:
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "the last receiver only": (
            2,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers[-1:]:
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "one receiver per layer": (
            2,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in dict(receivers).items():
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "the receivers' whole layer": (
            4,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers:
            if layer == hook.layer():
                value = heard[hook.name]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "delivered at END only": (
            3,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers:
            if layer == hook.layer():
                rows, end = torch.arange(len(base)), base.pos["END"]
                value[rows, end, head] = heard[hook.name][rows, end, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "receivers' inputs of the source run": (
            4,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    _, new = model.run_with_cache(source.tokens)

    def deliver(value, hook):
        for layer, head in receivers:
            if layer == hook.layer():
                value[:, :, head] = new[hook.name][:, :, head]
        return value

    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})
    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "base and source exchanged": (
            4,
            """
def path_to_heads(model, source, base, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    at = f"blocks.{sender[0]}.attn.hook_z"
    held[at][:, :, sender[1]] = new[at][:, :, sender[1]]
    heard = {}
    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})

    def note(value, hook):
        heard[hook.name] = value.clone()

    hold = [(name, lambda value, hook: held[hook.name]) for name in names]
    model.run_with_hooks(
        base.tokens, fwd_hooks=hold + [(name, note) for name in inputs]
    )

    def deliver(value, hook):
        value = value.clone()
        for layer, head in receivers:
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[] + [(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
        "receivers hear each other": (
            2,
            """
def path_to_heads(model, base, source, sender, receivers, component):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens)
    _, new = model.run_with_cache(source.tokens)
    at, heard = f"blocks.{sender[0]}.attn.hook_z", {}

    def hold(z, hook):
        free = [head for layer, head in receivers if layer == hook.layer()]
        kept = old[hook.name].clone()
        kept[:, :, free] = z[:, :, free]
        if hook.name == at:
            kept[:, :, sender[1]] = new[at][:, :, sender[1]]
        return kept

    def note(value, hook):
        heard[hook.name] = value.clone()

    def deliver(value, hook):
        for layer, head in receivers:
            if layer == hook.layer():
                value[:, :, head] = heard[hook.name][:, :, head]
        return value

    inputs = sorted({f"blocks.{layer}.attn.hook_{component}" for layer, _ in receivers})
    model.run_with_hooks(
        base.tokens,
        fwd_hooks=[(name, hold) for name in names] + [(name, note) for name in inputs],
    )
    logits = model.run_with_hooks(
        base.tokens, fwd_hooks=[(name, deliver) for name in inputs]
    )
    return logit_diff(logits, base, per_prompt=True)
""",
        ),
    },
    "q12": {
        "reasons of the last two exchanged": (
            1,
            """
shown = {
    "swap_subject": ({"values", "queries", "logits"}, "C"),
    "swap_names": ({"keys", "values", "queries"}, "B"),
    "random_names": ({"keys", "logits"}, "A"),
}
""",
        ),
        "keys expected with swap_subject": (
            2,
            """
shown = {
    "swap_subject": ({"keys", "values", "queries", "logits"}, "C"),
    "swap_names": ({"keys", "values", "queries"}, "A"),
    "random_names": ({"keys", "logits"}, "B"),
}
""",
        ),
        "random names thought to change every message": (
            2,
            """
shown = {
    "swap_subject": ({"values", "queries", "logits"}, "C"),
    "swap_names": ({"keys", "values", "queries"}, "A"),
    "random_names": ({"keys", "values", "queries", "logits"}, "B"),
}
""",
        ),
        "same answer, so nothing to be seen": (
            2,
            """
shown = {
    "swap_subject": ({"values", "queries", "logits"}, "C"),
    "swap_names": (set(), "A"),
    "random_names": ({"keys", "logits"}, "B"),
}
""",
        ),
        "not filled in": (
            3,
            """
shown = {kind: (..., ...) for kind in ("swap_subject", "swap_names", "random_names")}
""",
        ),
    },
}

RESTYLED = {  # question -> style -> source: full marks
    "q1": {
        "hooks from a factory, in a context": """
def record(model, data, names):
    kept = {}

    def noting(name):
        def hook_function(value, hook):
            kept[name] = value.detach().clone()

        return hook_function

    with model.hooks(fwd_hooks=[(name, noting(name)) for name in names]):
        logits = model(data.tokens)
    rows = torch.arange(len(data.tokens))
    at_end = logits[rows, data.lengths - 1]
    return at_end[rows, data.answers[:, 0]] - at_end[rows, data.answers[:, 1]], kept
""",
        "class": """
class Recorder:
    def __init__(self, name):
        self.name, self.kept = name, None

    def __call__(self, value, hook):
        self.kept = value.detach().clone()


class Record:
    def __call__(self, model, data, names):
        recorders = [Recorder(name) for name in names]
        logits = model.run_with_hooks(
            data.tokens, fwd_hooks=[(each.name, each) for each in recorders]
        )
        return logit_diff(logits, data, per_prompt=True), {
            each.name: each.kept for each in recorders
        }


record = Record()
""",
        "slow but right": """
def record(model, data, names):
    kept = {}
    for name in names:
        for _ in range(3):
            def note(value, hook):
                kept[name] = value + 0

            logits = model.run_with_hooks(data.tokens, fwd_hooks=[(name, note)])
    return logit_diff(logits, data, per_prompt=True), kept
""",
    },
    "q2": {
        "in place, one prompt at a time": """
def patch_stream(model, clean, corrupted, layer, role):
    name = f"blocks.{layer}.hook_resid_pre"
    source = model.run_with_cache(clean.tokens)[1][name]
    places = clean.pos[role].tolist()

    def put(x, hook):
        for i, pos in enumerate(places):
            x[i, pos, :] = source[i, pos, :]
        return x

    with model.hooks(fwd_hooks=[(name, put)]):
        return logit_diff(model(corrupted.tokens), clean, per_prompt=True)
""",
        "slow but right": """
def patch_stream(model, clean, corrupted, layer, role):
    name, diffs = f"blocks.{layer}.hook_resid_pre", []
    for i in range(len(clean)):
        at = int(clean.pos[role][i])
        _, cache = model.run_with_cache(clean.tokens)

        def put(resid, hook):
            resid = resid.clone()
            resid[i, at] = cache[name][i, at]
            return resid

        logits = model.run_with_hooks(corrupted.tokens, fwd_hooks=[(name, put)])
        diffs.append(logit_diff(logits, clean, per_prompt=True)[i])
    return torch.stack(diffs)
""",
    },
    "q3": {
        "one hook per head, bound": """
def patch_heads(model, clean, corrupted, heads, role):
    _, source = model.run_with_cache(clean.tokens)
    batch = torch.arange(len(clean))

    def put(z, hook, head):
        z[batch, clean.pos[role], head] = source[hook.name][
            batch, clean.pos[role], head
        ]
        return z

    hooks = [
        (f"blocks.{layer}.attn.hook_z", partial(put, head=head))
        for layer, head in heads
    ]
    return logit_diff(
        model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks), clean, per_prompt=True
    )
""",
        "with a mask": """
def patch_heads(model, clean, corrupted, heads, role):
    _, cache = model.run_with_cache(clean.tokens)
    mask = torch.zeros(
        model.cfg.n_layers, *clean.tokens.shape, model.cfg.n_heads, 1, dtype=torch.bool
    )
    for layer, head in heads:
        mask[layer, range(len(clean)), clean.pos[role], head] = True

    def mix(z, hook):
        return torch.where(mask[hook.layer()], cache[hook.name], z)

    hooks = [
        (f"blocks.{layer}.attn.hook_z", mix) for layer in range(model.cfg.n_layers)
    ]
    return logit_diff(
        model.run_with_hooks(corrupted.tokens, fwd_hooks=hooks), clean, per_prompt=True
    )
""",
    },
    "q4": {
        "lists and floats": """
def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    low, high = corrupted_diff.mean().item(), clean_diff.mean().item()
    table = []
    for layer in range(n_layers):
        table.append(
            [(patch(layer, role).mean().item() - low) / (high - low) for role in roles]
        )
    return table
""",
        "lambda": """
layer_by_role = lambda patch, n_layers, roles, clean_diff, corrupted_diff: (
    (
        torch.tensor(
            [
                [float(patch(layer, role).mean()) for role in roles]
                for layer in range(n_layers)
            ]
        )
        - corrupted_diff.mean()
    )
    / (clean_diff.mean() - corrupted_diff.mean())
)
""",
        "numpy": """
import numpy as np


def layer_by_role(patch, n_layers, roles, clean_diff, corrupted_diff):
    low, high = np.mean(corrupted_diff.numpy()), np.mean(clean_diff.numpy())
    means = np.array(
        [
            [np.mean(patch(layer, role).numpy()) for role in roles]
            for layer in range(n_layers)
        ]
    )
    return (means - low) / (high - low)
""",
    },
    "q5": {
        "axis moved": """
def patch_part(model, clean, corrupted, head, part):
    at = f"blocks.{head[0]}.attn.hook_{part}"
    axis = {"pattern": 1}.get(part, 2)
    kept = model.run_with_cache(clean.tokens, names_filter=at)[1][at].select(
        axis, head[1]
    )

    def swap(activation, hook):
        activation.select(axis, head[1]).copy_(kept)
        return activation

    return logit_diff(
        model.run_with_hooks(corrupted.tokens, fwd_hooks=[(at, swap)]),
        clean,
        per_prompt=True,
    )
""",
        "class": """
class Head:
    def __init__(self, head, part):
        self.layer, self.index = head
        self.name, self.axis = (
            f"blocks.{self.layer}.attn.hook_{part}",
            1 if part == "pattern" else 2,
        )

    def put(self, clean):
        def hook_fn(value, hook):
            parts = list(value.unbind(self.axis))
            parts[self.index] = clean.unbind(self.axis)[self.index]
            return torch.stack(parts, self.axis)

        return self.name, hook_fn


class PatchPart:
    def __call__(self, model, clean, corrupted, head, part):
        one = Head(head, part)
        _, cache = model.run_with_cache(
            clean.tokens, names_filter=lambda name: name == one.name
        )
        logits = model.run_with_hooks(
            corrupted.tokens, fwd_hooks=[one.put(cache[one.name])]
        )
        return logit_diff(logits, clean, per_prompt=True)


patch_part = PatchPart()
""",
    },
    "q7": {
        "one loop over both directions, as a tensor": """
def both_ways(model, clean, other, head):
    hook_name, found = f"blocks.{head[0]}.attn.hook_z", []
    runs = {
        data: model.run_with_cache(data.tokens, names_filter=hook_name)
        for data in (clean, other)
    }
    ends = [logit_diff(runs[data][0], clean) for data in (other, clean)]
    for into, source in ((other, clean), (clean, other)):

        def swap(z, hook, z_new=runs[source][1][hook_name]):
            return torch.cat(
                [
                    z[:, :, : head[1]],
                    z_new[:, :, head[1], None],
                    z[:, :, head[1] + 1 :],
                ],
                dim=2,
            )

        logits = model.run_with_hooks(into.tokens, fwd_hooks=[(hook_name, swap)])
        found.append((logit_diff(logits, clean) - ends[0]) / (ends[1] - ends[0]))
    return torch.stack([found[0], 1 - found[1]])
""",
        "lambda": """
_hook = lambda model, head: f"blocks.{head[0]}.attn.hook_z"
_with = lambda z, source, index: torch.cat(
    [z[:, :, :index], source[:, :, index : index + 1], z[:, :, index + 1 :]], 2
)
_cache = lambda model, data, head: model.run_with_cache(data.tokens)[1][
    _hook(model, head)
]
_patched = lambda model, into, source, clean, head: logit_diff(
    model.run_with_hooks(
        into.tokens,
        fwd_hooks=[
            (
                _hook(model, head),
                lambda z, hook, kept=_cache(model, source, head): _with(
                    z, kept, head[1]
                ),
            )
        ],
    ),
    clean,
).item()
_plain = lambda model, data, clean: logit_diff(model(data.tokens), clean).item()
_scaled = lambda x, low, high: (x - low) / (high - low)
both_ways = lambda model, clean, other, head: (
    _scaled(
        _patched(model, other, clean, clean, head),
        _plain(model, other, clean),
        _plain(model, clean, clean),
    ),
    1
    - _scaled(
        _patched(model, clean, other, clean, head),
        _plain(model, other, clean),
        _plain(model, clean, clean),
    ),
)
""",
    },
    "q9": {
        "at END alone, where the logits are read": """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    names = [f"blocks.{i}.attn.hook_z" for i in range(model.cfg.n_layers)]
    if mlps == "frozen":
        names += [f"blocks.{i}.hook_mlp_out" for i in range(model.cfg.n_layers)]
    _, old = model.run_with_cache(base.tokens, names_filter=names)
    _, new = model.run_with_cache(source.tokens, names_filter=names)
    held = {name: old[name].clone() for name in names}
    for layer, head in senders:
        rows, end = torch.arange(len(base)), base.pos["END"]
        held[names[layer]][rows, end, head] = new[names[layer]][rows, end, head]
    hooks = [(name, lambda value, hook: held[hook.name]) for name in names]
    return logit_diff(
        model.run_with_hooks(base.tokens, fwd_hooks=hooks), base, per_prompt=True
    )
""",
        "two kinds of hooks in contexts": """
def path_to_logits(model, base, source, senders, mlps="recompute"):
    old, new = (model.run_with_cache(data.tokens)[1] for data in (base, source))

    def speak(z, hook):
        z = old[hook.name].clone()
        for head in [head for layer, head in senders if layer == hook.layer()]:
            z[:, :, head] = new[hook.name][:, :, head]
        return z

    def keep(out, hook):
        return old[f"blocks.{hook.layer()}.hook_mlp_out"] if mlps == "frozen" else out

    layers = range(model.cfg.n_layers)
    hooks = [(f"blocks.{i}.attn.hook_z", speak) for i in layers] + [
        (f"blocks.{i}.hook_mlp_out", keep) for i in layers
    ]
    with model.hooks(fwd_hooks=hooks):
        logits = model(base.tokens)
    return logit_diff(logits, base, per_prompt=True)
""",
    },
    "q10": {
        "all positions, einsum": """
def direct_edge(model, base, old, new, sender):
    at = f"blocks.{sender[0]}.attn.hook_z"
    written = [
        torch.einsum("bpd,dm->bpm", cache[at][:, :, sender[1]], model.W_O[sender])
        for cache in (old, new)
    ]
    stream = (
        old[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
        - written[0]
        + written[1]
    )
    return logit_diff(model.unembed(model.ln_final(stream)), base, per_prompt=True)
""",
        "numpy": """
import numpy as np


def direct_edge(model, base, old, new, sender):
    layer, head = sender
    i, end = np.arange(len(base)), base.pos["END"].numpy()
    z, last = (
        f"blocks.{layer}.attn.hook_z",
        f"blocks.{model.cfg.n_layers - 1}.hook_resid_post",
    )
    change = (
        new[z].detach().numpy()[i, end, head] - old[z].detach().numpy()[i, end, head]
    )
    change = change @ model.W_O[layer, head].detach().numpy()
    final = torch.from_numpy(old[last].detach().numpy()[i, end] + change)
    return (
        logit_diff(model.unembed(model.ln_final(final)), base, per_prompt=True)
        .detach()
        .numpy()
    )
""",
    },
    "q11": {
        "with a cache for the third pass": """
def path_to_heads(model, base, source, sender, receivers, component):
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    old = model.run_with_cache(base.tokens, names_filter=sites)[1]
    new = model.run_with_cache(source.tokens, names_filter=sites)[1]

    def freeze(z, hook):
        z = old[hook.name].clone()
        if hook.layer() == sender[0]:
            z[..., sender[1], :] = new[hook.name][..., sender[1], :]
        return z

    with model.hooks(fwd_hooks=[(site, freeze) for site in sites]):
        third = model.run_with_cache(base.tokens)[1]

    def put(value, hook, head):
        value[..., head, :] = third[hook.name][..., head, :]
        return value

    hooks = [
        (f"blocks.{layer}.attn.hook_{component}", partial(put, head=head))
        for layer, head in receivers
    ]
    with model.hooks(fwd_hooks=hooks):
        return logit_diff(model(base.tokens), base, per_prompt=True)
""",
    },
    "q12": {
        "lists for sets": """
shown = dict(
    swap_names=[["values", "queries", "keys"], "A"],
    random_names=[["logits", "keys"], "B"],
    swap_subject=[["logits", "values", "queries"], "C"],
)
""",
    },
}
