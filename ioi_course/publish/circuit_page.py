"""The circuit as one page to explore: what each head looks at, what it writes, and
what happens without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from ioi_course.ablation import Ablation, _Job, _bias, _check_sum, _measure
from ioi_course.means import Means, reference_means
from ioi_course.attention import KEYS, QUERIES, attention_to_roles
from ioi_course.attribution import _rounding, direct_attribution
from ioi_course.bundled.answer_key import known_circuit
from ioi_course.circuit import _check_circuit
from ioi_course.roles import Head
from ioi_course.finder import find_circuit
from ioi_course.heads import KINDS, head_scores
from ioi_course.kept_circuits import kept_circuits
from ioi_course.batches import cached_batches
from ioi_course.metrics import logit_diff, prob_io, single_token
from ioi_course.models import describe, is_synthetic, load_model, model_name
from ioi_course.movers import CopyScores, extended_embedding, own_ranks
from ioi_course.plots import head_name
from ioi_course.plots.charts import _role_colours
from ioi_course.plots.diagram import _INPUTS
from ioi_course.prompts import ROLES, IOIDataset, single_token_names
from ioi_course.publish.about import ABOUT
from ioi_course.publish.circuit_drawing import MARGIN, WIDTH, diagram_of
from ioi_course.publish.drawn_edges import edges_of, parts
from ioi_course.publish.switched_off import rows_of, switched_off
from ioi_course.templates import DEMO_PROMPTS
from ioi_course.roles import Circuit

NAME = "circuit.html"
LARGEST = 1_000_000  # bytes of a page
PAGE = files("ioi_course") / "data" / "page"
SCRIPTS = "circuit", "off", "circuit_start"
LAB = "lab.html"  # beside it, of the synthetic model
OTHERS = 5  # heads listed that react to an ablation


def page_prompts(
    model,  # a TransformerBridge
    n: int = 8,  # how many
    seed: int = 0,  # of those that are drawn
) -> IOIDataset:
    """The demo's first pair of prompts, if its names are one token each in this model,
    then some of the course's."""
    drawn = IOIDataset(model, n, seed)
    demo = [
        prompt for prompt in DEMO_PROMPTS[:2] if set(prompt.names) <= set(drawn.names)
    ]
    return IOIDataset.from_prompts(model, [*demo, *drawn.records][:n])


def circuit_of(
    model,  # a TransformerBridge
) -> Circuit:
    """The circuit that the model is known to have; else the one that is kept of it;
    else the finder's proposal.

    ValueError if there is none of them.
    """
    if (known := known_circuit(model)) is not None:
        return known
    if (kept := kept_circuits().get(model_name(model))) is not None:
        return kept.circuit
    found = find_circuit(model, IOIDataset(model, 64), progress=False)
    if not len(found.circuit):
        raise ValueError(
            f"There is no circuit to show for {model_name(model)}: none is known, and "
            "the finder proposes none "
            f"({'; '.join(found.notes) or 'no head passes its rules'}). Give a Circuit "
            "of your own to `collect`."
        )
    return found.circuit


# What is measured


def collect(
    model,  # a TransformerBridge
    circuit: Circuit,
    data: IOIDataset,  # the prompts to choose from
) -> dict:
    """All that the page shows, as plain values for JSON: of the prompts, of the
    classes, and of each head per prompt.

    Attention in thousandths, row by row up to the diagonal. Effects in logits. A head
    is ablated where it acts: there it puts out its mean over ABC prompts of the same
    template, and all else is computed anew.
    """
    _check_circuit(model, circuit)
    if not len(circuit):
        raise ValueError(
            f"The circuit of {circuit.name} has no heads; there is nothing to show."
        )
    heads = [(role, head) for role, heads in circuit.roles.items() for head in heads]
    roles = attention_to_roles(model, data).attention
    direct = direct_attribution(model, data, "head").values
    places = [head for _, head in heads]
    scores = _scores(model, places)
    prompts, patterns = _run(model, data, places)
    means = reference_means(model, data)
    ablations = _ablations(model, data, circuit, means)
    rows = []
    for (role, head), values in zip(heads, scores, strict=True):
        views = [
            {
                "pattern": patterns[head][i],
                "roles": _round(roles[i][head]),
                "direct": _round(direct[i][head]),
                **_without(ablations[head], i, circuit),
            }
            for i in range(len(data))
        ]
        rows.append(
            {"name": head_name(*head), "class": role, "scores": values, "views": views}
        )
    return {
        "model": {
            "name": model_name(model),
            "what": describe(model).rows["what it is"],
        },
        "synthetic": is_synthetic(model),
        "source": circuit.source,
        "queries": QUERIES,
        "keys": KEYS,
        "prompts": prompts,
        "classes": _classes(circuit),
        "heads": rows,
        "off": switched_off(model, circuit, data, means),
        "drawing": edges_of(model, circuit, data),
    }


def _round(values: Tensor | float):
    """Plain numbers with three decimals, no −0; None for NaN,
    which JSON does not have."""
    if isinstance(values, Tensor) and values.ndim:
        return [_round(value) for value in values]
    value = round(float(values), 3) + 0.0
    return None if value != value else value


def _scores(model, heads: Sequence[Head]) -> list[dict[str, float]]:
    """Of each of these heads where it looks on repeated random tokens, and whether
    its weights copy names."""
    random, names = head_scores(model), single_token_names(model)
    tokens = torch.tensor([single_token(model, f" {name}") for name in names])
    ranks = own_ranks(
        model, extended_embedding(model, tokens), tokens, heads, progress=False
    )
    # as `copy_scores`, but of some heads
    copying = CopyScores({"extended": ranks}, names, model_name(model))
    scores = {kind: random[kind][tuple(zip(*heads, strict=True))] for kind in KINDS}
    scores |= {"copy": copying.copy(), "negative copy": copying.negative()}
    return [
        {kind: _round(values[i]) for kind, values in scores.items()}
        for i in range(len(heads))
    ]


def _run(
    model, data: IOIDataset, heads: Sequence[Head]
) -> tuple[list[dict], dict[Head, list[list[int]]]]:
    """What the model makes of each prompt, and the heads' attention in it."""
    names = {layer: f"blocks.{layer}.attn.hook_pattern" for layer, _ in heads}
    prompts, patterns = [], {head: [] for head in heads}
    for batch, logits, cache in cached_batches(model, data, list(names.values())):
        diffs = logit_diff(logits, batch, per_prompt=True)
        probs = prob_io(logits, batch, per_prompt=True)
        for i, record in enumerate(batch):
            length = int(batch.lengths[i])
            prompts.append({
                "text": batch.prompts[i], "IO": record.IO, "S": record.S,
                "tokens": batch.str_tokens(i),
                "pos": {role: int(batch.pos[role][i]) for role in ROLES},
                "diff": _round(diffs[i]), "prob": _round(probs[i]),
            })  # fmt: skip
            rows, columns = torch.tril_indices(length, length)
            for layer, head in heads:
                seen = cache[names[layer]][i, head].cpu()[rows, columns]
                patterns[layer, head].append((1000 * seen).round().int().tolist())
    return prompts, patterns


def _ablations(
    model, data: IOIDataset, circuit: Circuit, means: Means
) -> dict[Head, Ablation]:
    """What `ablate(model, data, [head], "mean", at=...)` gives for each head, with the
    means taken only once."""
    bias, everything = _bias(model, data), torch.arange(len(data))
    results = {}
    for role, heads in circuit.roles.items():
        at = circuit.positions[role]
        for head in heads:
            job = _Job(model, data, (head,), "mean", at, None, (), 0.5)
            (before, _), (after, _) = _measure(
                job, everything, {head[0]: means[head[0]]}, []
            )
            pairs = [part for both in zip(before, after, strict=True) for part in both]
            results[head] = Ablation(
                *pairs, bias, {}, (head,), "mean", at, (), model_name(model)
            )
            _check_sum(results[head], _rounding(model))
    return results


def _without(ablation: Ablation, i: int, circuit: Circuit) -> dict:
    """One prompt's logit difference without a head, and the other heads whose
    direct effects change most."""
    changes = ablation.change[i].clone()
    changes[ablation.heads[0]] = 0
    others = []
    for place in (
        changes.flatten().abs().argsort(descending=True, stable=True)[:OTHERS].tolist()
    ):
        head = divmod(place, changes.shape[1])
        effects = (
            _round(ablation.direct_before[i][head]),
            _round(ablation.direct_after[i][head]),
        )
        others.append([head_name(*head), circuit.role_of(*head) or "", *effects])
    return {
        "ablated": _round(ablation.after[i]),
        "naive": _round(ablation.naive[i]),
        "others": others,
    }


def _classes(circuit: Circuit) -> dict[str, dict]:
    """Of each class: what it does, where, and how it is joined to others."""
    found = {}
    for role in circuit.roles:
        passes = _joined(
            [(edge.receiver, edge.via) for edge in circuit.edges if edge.sender == role]
        )
        reads = _joined(
            [(edge.sender, edge.via) for edge in circuit.edges if edge.receiver == role]
        )
        found[role] = {
            "at": circuit.positions[role],
            "about": ABOUT.get(role, ""),
            "passes": passes,
            "reads": reads,
        }
    return found


def _joined(edges: Sequence[tuple[str, str]]) -> list[str]:
    """The other ends of edges, each with the inputs that they change:
    "S-inhibition (keys, values)"."""
    words = {
        end: ", ".join(_INPUTS[via] for other, via in edges if other == end)
        for end, _ in edges
    }
    return [
        f"{other} ({inputs})" if inputs else other for other, inputs in words.items()
    ]


# The page


def render(
    data: dict,  # from `collect`
    circuit: Circuit,  # the one that was measured
    home: str | None = None,  # the address of the course's index, for a link to it
    lab: str | None = None,  # the address of the lab of the same model, for links to it
) -> str:
    """One page of HTML with everything in it: it needs no server, no
    network and no other file."""
    colours = _role_colours(circuit)
    text = json.dumps(
        data | {"drawn": colours, "lab": lab},
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )
    templates = Environment(
        loader=PackageLoader("ioi_course", "data/page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = _number
    return templates.get_template(f"{NAME}.j2").render(
        data=data,
        json=Markup(text.replace("<", "\\u003c")),  # a token may be "</script>"
        script=Markup(
            "\n".join(
                (PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS
            )
        ),
        diagram=diagram_of(circuit),
        width=WIDTH,
        margin=MARGIN,
        colours=colours,
        summary=[_summary(head, data) for head in data["heads"]],
        off_rows=rows_of(circuit, data["off"]),
        first=max(
            range(len(data["heads"])), key=lambda i: _mean(data["heads"][i], "direct")
        ),
        home=home,
        **parts(),
    )


def _number(value: float | None) -> str:
    """Two decimals and a real minus sign; empty for what was not measured."""
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _mean(head: dict, what: str) -> float:
    return sum(view[what] for view in head["views"]) / len(head["views"])


def _summary(head: dict, data: dict) -> dict:
    """A head's row in the table: its scores, and means over the prompts."""
    at, views = data["classes"][head["class"]]["at"], head["views"]
    looks = {key: None for key in KEYS}
    if at in QUERIES:
        for i, key in enumerate(KEYS):
            seen = [view["roles"][QUERIES.index(at)][i] for view in views]
            looks[key] = None if None in seen else sum(seen) / len(seen)
    before = sum(prompt["diff"] for prompt in data["prompts"]) / len(views)
    return {
        "at": at,
        "looks": looks,
        "direct": _mean(head, "direct"),
        "lost": _mean(head, "ablated") - before,
    }


def write_page(
    path: Path | str,  # the file to write
    model,  # a TransformerBridge, or a name for `load_model`
    circuit: Circuit | None = None,  # None: `circuit_of(model)`
    data: IOIDataset | None = None,  # None: `page_prompts(model)`
    home: str | None = None,  # see `render`
) -> Path:
    """Measure, and write the page. ValueError if it would exceed `LARGEST` bytes."""
    model = load_model(model) if isinstance(model, str) else model
    circuit = circuit_of(model) if circuit is None else circuit
    data = page_prompts(model) if data is None else data
    text = render(
        collect(model, circuit, data),
        circuit,
        home,
        LAB if home and is_synthetic(model) else None,
    )
    if (size := len(text.encode())) > LARGEST:
        raise ValueError(
            f"The page would have {size / 1e6:.1f} MB with {len(data)} prompts and "
            f"{len(circuit)} heads; {LARGEST / 1e6:g} MB is the most that it may have. "
            "Give fewer prompts."
        )
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path
