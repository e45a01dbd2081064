"""Prompts: roles, answers, counterfactuals, sampling, and what is refused."""

import copy
import random
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ioi_course import prompts
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.prompts import (
    COUNTERFACTUALS,
    ROLES,
    IOIDataset,
    check_aligned,
    misalignment,
    single_token_names,
)
from ioi_course.templates import (
    DEMO_PROMPTS,
    FRESH_TEMPLATES,
    NAMES,
    OBJECTS,
    PLACES,
    TEMPLATES,
    IOIPrompt,
    sample_prompts,
)  # fmt: skip

KINDS = [None, *COUNTERFACTUALS]
ALIGNED = ["swap_subject", "abc", "swap_names", "random_names"]
TOKENIZERS = [
    "tokenizer",
    pytest.param("gpt2_tokenizer", marks=pytest.mark.gpt2_tokenizer),
]


@pytest.fixture(scope="module", params=TOKENIZERS)
def tok(request):
    """The synthetic tokenizer, then GPT-2's."""
    return request.getfixturevalue(request.param)


def expected_roles(tok, prompt: IOIPrompt, bos: bool) -> dict[str, int]:
    """The roles found another way than in the library: search the text for names, count
    the tokens before them."""
    text = prompt.text

    def at(name, which):
        start = [found.start() for found in re.finditer(rf"\b{name}\b", text)][which]
        return bos + len(tok(text[: start - 1], add_special_tokens=False)["input_ids"])

    end = bos + len(tok(text, add_special_tokens=False)["input_ids"]) - 1
    s1 = at(prompt.S, 0)
    return {
        "IO": at(prompt.IO, 0),
        "S1": s1,
        "S1+1": s1 + 1,
        "S2": at(prompt.third or prompt.S, -1),
        "END": end,
    }


def check_roles(tok, data: IOIDataset):
    for i, prompt in enumerate(data):
        pos = {role: int(data.pos[role][i]) for role in ROLES}
        assert pos == expected_roles(tok, prompt, data.bos), prompt.text
        assert len(set(pos.values())) == len(ROLES)
        words = data.str_tokens(i)
        assert (
            words[pos["IO"]] == f" {prompt.IO}" and words[pos["S1"]] == f" {prompt.S}"
        )
        assert (
            words[pos["S2"]] == f" {prompt.third or prompt.S}"
            and words[pos["END"]] == " to"
        )
        assert data.answers[i].tolist() == [
            tok.encode(f" {n}", add_special_tokens=False)[0] for n in prompt.names[:2]
        ]
        ids = [tok.bos_token_id] * data.bos + tok(
            prompt.text, add_special_tokens=False
        )["input_ids"]
        assert data.tokens[i, : data.lengths[i]].tolist() == ids
        assert pos["END"] == data.lengths[i] - 1


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_roles_of_every_template_and_order(tok, kind, bos):
    forms = [
        (template, order)
        for template in (*TEMPLATES, *FRESH_TEMPLATES)
        for order in ("ABBA", "BABA")
    ]
    everything = [
        IOIPrompt(template, "Mary", "John", order, "garden", "book")
        for template, order in forms
    ]
    data = IOIDataset.from_prompts(tok, everything, bos)
    check_roles(tok, data if kind is None else data.counterfactual(kind))


def words_of(template: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"\[\w+\]", "", template.lower())))


def test_fresh_templates_are_fresh():
    assert len(FRESH_TEMPLATES) == 12 and not set(FRESH_TEMPLATES) & set(TEMPLATES)
    opening = {template.split("[A]")[0] for template in TEMPLATES}
    assert not opening & {template.split("[A]")[0] for template in FRESH_TEMPLATES}
    for new in FRESH_TEMPLATES:  # none is an old one with a word or two exchanged
        assert (
            max(
                len(words_of(new) & words_of(old)) / len(words_of(new) | words_of(old))
                for old in TEMPLATES
            )
            < 0.6
        )


def test_fresh_templates_are_words_of_the_bundled_vocabulary():
    tokenizer = build_tokenizer()
    for template in FRESH_TEMPLATES:
        text = IOIPrompt(template, "Mary", "John", "ABBA", "park", "ball").text
        assert len(tokenizer.encode(text, add_special_tokens=False)) == len(
            re.findall(r"\w+|[.,]", text)
        ), template


@settings(max_examples=150, deadline=None)
@given(
    names=st.permutations(range(len(NAMES))).map(
        lambda order: [NAMES[i] for i in order[:2]]
    ),
    template=st.sampled_from((*TEMPLATES, *FRESH_TEMPLATES)),
    order=st.sampled_from(["ABBA", "BABA"]),
    place=st.sampled_from(PLACES),
    thing=st.sampled_from(OBJECTS),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    bos=st.booleans(),
)
def test_roles_of_any_words(tok, names, template, order, place, thing, kind, seed, bos):
    data = IOIDataset.from_prompts(
        tok, [IOIPrompt(template, *names, order, place, thing)], bos
    )
    check_roles(tok, data if kind is None else data.counterfactual(kind, seed))


def test_roles_of_drawn_prompts(tok):
    data = IOIDataset(tok, 200, seed=3)
    check_roles(tok, data)
    # templates of different lengths, so positions differ
    assert len({int(n) for n in data.lengths}) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_both_roles(tok, name):
    other = "Mary" if name != "Mary" else "John"
    pair = [
        IOIPrompt(TEMPLATES[0], *names, "ABBA", "park", "ball")
        for names in ((name, other), (other, name))
    ]
    check_roles(tok, IOIDataset.from_prompts(tok, pair))


def test_padding_is_on_the_right_and_harmless(model):
    data = IOIDataset(model, 12, seed=5)
    assert data.lengths.min() < data.tokens.shape[1]
    with torch.inference_mode():
        together = model(data.tokens)
        for i in range(len(data)):
            alone = model(model.to_tokens(data.prompts[i]))[0, -1]
            torch.testing.assert_close(
                together[i, data.pos["END"][i]], alone, atol=1e-4, rtol=1e-4
            )


def test_a_model_and_its_tokenizer_give_the_same(model):
    of_model, of_tokenizer = IOIDataset(model, 20), IOIDataset(model.tokenizer, 20)
    assert of_model.prompts == of_tokenizer.prompts and of_model.tokens.equal(
        of_tokenizer.tokens
    )
    assert of_model.tokens.device == model.cfg.device or str(
        of_model.tokens.device
    ) == str(model.cfg.device)
    demo = IOIDataset.demo(model)
    assert demo.tokens.equal(model.to_tokens(demo.prompts))


# --- drawing


@pytest.mark.parametrize("order, abba", [("both", 101), ("ABBA", 201), ("BABA", 0)])
def test_orders(order, abba):
    drawn = sample_prompts(201, order=order)
    assert sum(prompt.order == "ABBA" for prompt in drawn) == abba
    for prompt in drawn:
        a, b = (
            (prompt.IO, prompt.S) if prompt.order == "ABBA" else (prompt.S, prompt.IO)
        )
        assert f" {a} and {b} " in prompt.text


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_prompts_are_distinct(seed):
    texts = [prompt.text for prompt in sample_prompts(5000, seed)]
    assert len(set(texts)) == 5000


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(), n=st.integers(1, 72))
def test_few_words_can_be_used_up(seed, n):
    words = dict(
        names=NAMES[:3], places=PLACES[:2], objects=OBJECTS[:3], templates=TEMPLATES[:2]
    )
    assert (
        len({prompt.text for prompt in sample_prompts(n, seed, "ABBA", **words)}) == n
    )


def test_all_of_a_small_set_are_drawn():
    words = dict(
        names=NAMES[:3], places=["park"], objects=["ball"], templates=TEMPLATES[:1]
    )
    drawn = {(p.IO, p.S, p.order) for p in sample_prompts(12, 7, **words)}
    assert drawn == {
        (a, b, order)
        for a in NAMES[:3]
        for b in NAMES[:3]
        if a != b
        for order in ("ABBA", "BABA")
    }


def test_everything_is_about_equally_likely():
    drawn = sample_prompts(6400, seed=1)
    counts = [sum(p.template == t for p in drawn) for t in TEMPLATES]
    # 400 expected, standard deviation 19
    assert min(counts) > 300 and max(counts) < 500
    assert {p.IO for p in drawn} == {p.S for p in drawn} == set(NAMES)


def test_same_seed_same_prompts(tok):
    a, b, c = (
        IOIDataset(tok, 50, seed=4),
        IOIDataset(tok, 50, seed=4),
        IOIDataset(tok, 50, seed=5),
    )
    assert a.prompts == b.prompts and a.tokens.equal(b.tokens)
    assert not set(a.prompts) & set(c.prompts)


@pytest.mark.parametrize("kind", ["abc", "random_names"])
def test_counterfactuals_have_their_own_seed(tokenizer, kind):
    data = IOIDataset(tokenizer, 30)
    assert data.counterfactual(kind, 1).prompts == data.counterfactual(kind, 1).prompts
    assert data.counterfactual(kind, 1).prompts != data.counterfactual(kind, 2).prompts


def test_the_drawn_prompts_are_these():
    """Pins the sampler: a change of it would change every stored
    output of the course."""
    drawn = sample_prompts(2, seed=0)
    assert [prompt.text for prompt in drawn] == [
        (
            "On Sunday Justin and Hannah walked past the bank, and soon Hannah "
            "returned the bone to"
        ),
        (
            "Because Barbara and Adam worked together at the museum, Barbara sent a "
            "picture to"
        ),
    ]


def test_other_generators_are_left_alone(tokenizer):
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    data = IOIDataset(tokenizer, 20)
    for kind in COUNTERFACTUALS:
        data.counterfactual(kind)
    assert random.getstate() == states[0]
    assert (
        torch.get_rng_state().equal(states[1])
        and (np.random.get_state()[1] == states[2]).all()
    )


def test_a_thousand_prompts_take_less_than_a_second(tokenizer):
    def seconds():
        start = time.perf_counter()
        IOIDataset(tokenizer, 1000)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


# --- counterfactuals


@pytest.fixture(scope="module")
def clean(tokenizer):
    return IOIDataset(tokenizer, 60, seed=2)


def changed_roles(a: IOIDataset, b: IOIDataset, i: int) -> set[str]:
    """The clean roles at whose positions two aligned prompts differ; "other"
    for any other position."""
    role = {int(a.pos[r][i]): r for r in ROLES}
    return {
        role.get(p, "other")
        for p, (x, y) in enumerate(zip(a.tokens[i], b.tokens[i], strict=True))
        if x != y
    }


def test_swap_subject(clean):
    other = clean.counterfactual("swap_subject")
    assert all(changed_roles(clean, other, i) == {"S2"} for i in range(len(clean)))
    assert other.answers.equal(clean.answers.flip(1))
    assert other.pos["IO"].equal(clean.pos["S1"]) and other.pos["S1"].equal(
        clean.pos["IO"]
    )
    assert other.counterfactual("swap_subject").prompts == clean.prompts


def test_abc(clean):
    other = clean.counterfactual("abc")
    for i, (a, b) in enumerate(zip(clean, other, strict=True)):
        assert len(set(b.names)) == 3 and not set(a.names) & set(b.names)
        assert all(len(re.findall(rf"\b{name}\b", b.text)) == 1 for name in b.names)
        assert changed_roles(clean, other, i) == {"IO", "S1", "S2"}
    assert all(other.pos[role].equal(clean.pos[role]) for role in ROLES)


def test_random_names(clean):
    other = clean.counterfactual("random_names")
    for i, (a, b) in enumerate(zip(clean, other, strict=True)):
        assert not set(a.names) & set(b.names) and b.order == a.order
        assert changed_roles(clean, other, i) == {"IO", "S1", "S2"}
    assert all(other.pos[role].equal(clean.pos[role]) for role in ROLES)
    assert (
        other.tokens.gather(1, other.pos["S2"][:, None])[:, 0] == other.answers[:, 1]
    ).all()


def test_swap_names(clean):
    other = clean.counterfactual("swap_names")
    assert other.tokens.sort(dim=1).values.equal(clean.tokens.sort(dim=1).values)
    assert all(
        changed_roles(clean, other, i) == {"IO", "S1"} for i in range(len(clean))
    )
    assert other.answers.equal(clean.answers) and other.pos["IO"].equal(clean.pos["S1"])
    assert other.counterfactual("swap_names").prompts == clean.prompts


@pytest.mark.parametrize(
    "kind, name, times", [("extra_io", "IO", 2), ("extra_s", "S", 3)]
)
def test_extra(clean, kind, name, times):
    other = clean.counterfactual(kind)
    for a, b in zip(clean, other, strict=True):
        repeated = getattr(a, name)
        assert len(re.findall(rf"\b{repeated}\b", b.text)) == times
        distractor = f", where {repeated} had a good time"
        assert (
            b.text.replace(distractor, "") == a.text
            and f"{a.place}{distractor}" in b.text
        )
    assert other.answers.equal(clean.answers)
    assert other.pos["IO"].equal(clean.pos["IO"]) and other.pos["S1"].equal(
        clean.pos["S1"]
    )
    assert (other.pos["S2"] > clean.pos["S2"]).all()


@pytest.mark.parametrize("kind", COUNTERFACTUALS)
def test_counterfactuals_keep_the_rest(clean, kind):
    other = clean.counterfactual(kind)
    assert [(p.template, p.place, p.object) for p in other] == [
        (p.template, p.place, p.object) for p in clean
    ]
    assert (
        len(other) == len(clean)
        and (other.tokens[:, 0] == clean.tokenizer.bos_token_id).all()
    )


def test_parts_keep_bos_and_names(tokenizer):
    data = IOIDataset(tokenizer, 30, bos=False, names=NAMES[:9])
    for part in (data[:5], data.counterfactual("abc"), next(data.batches(4))):
        assert not part.bos and (part.tokens[:, 0] != tokenizer.bos_token_id).all()
        assert part.names == NAMES[:9] and {
            name for prompt in part for name in prompt.names
        } <= set(NAMES[:9])


@pytest.mark.parametrize("kind", ["abc", "random_names"])
def test_new_names_differ_from_prompt_to_prompt(clean, kind):
    """A generator that is seeded anew for each prompt would give all
    of them the same names."""
    assert len({prompt.names for prompt in clean.counterfactual(kind)}) > 50


@pytest.mark.parametrize("kind", COUNTERFACTUALS)
def test_alignment(clean, kind):
    other = clean.counterfactual(kind)
    if kind in ALIGNED:
        assert misalignment(clean, other) == ""
        check_aligned(clean, other)
        assert other.lengths.equal(clean.lengths)
    else:
        assert "in prompt 0 the S2 is at position" in misalignment(clean, other)
        with pytest.raises(
            ValueError,
            match="do not align: in prompt 0 the S2 is at position .* role by role",
        ):
            check_aligned(clean, other)


def test_misaligned_datasets(clean, tokenizer):
    assert misalignment(clean, clean[:3]) == "60 prompts against 3"
    assert "first name" in misalignment(
        clean, IOIDataset(tokenizer, 60, seed=2, bos=False)
    )
    longer = [replace(p, object="book of the year") for p in clean]
    assert "the END is at position" in misalignment(
        clean, IOIDataset.from_prompts(tokenizer, longer)
    )


def test_extra_works_after_other_counterfactuals(clean, tok):
    other = (
        IOIDataset.from_prompts(tok, clean.records)
        .counterfactual("extra_io")
        .counterfactual("random_names")
    )
    check_roles(tok, other)
    assert all(len(re.findall(rf"\b{p.IO}\b", p.text)) == 2 for p in other)


# --- as a list


def test_list_behaviour(clean):
    assert (
        len(clean) == 60
        and list(clean) == clean.records
        and clean[3] == clean.records[3]
        and clean[-1] == clean[59]
    )
    assert clean[np.int64(3)] == clean[3]
    few = clean[10:14]
    assert (
        few.prompts == clean.prompts[10:14]
        and isinstance(few, IOIDataset)
        and few.names == clean.names
    )
    assert few.answers.equal(clean.answers[10:14])
    assert all(few.pos[role].equal(clean.pos[role][10:14]) for role in ROLES)
    assert clean[::-1].prompts == clean.prompts[::-1]
    assert (
        clean[[5, 1]].prompts
        == [clean.prompts[5], clean.prompts[1]]
        == clean[torch.tensor([5, 1])].prompts
    )
    mask = clean.lengths > 16
    assert clean[mask].prompts == [
        p for p, keep in zip(clean.prompts, mask.tolist(), strict=True) if keep
    ]
    with pytest.raises(IndexError):
        clean[60]
    with pytest.raises(ValueError, match="at least one"):
        clean[:0]


@pytest.mark.parametrize(
    "size, sizes", [(25, [25, 25, 10]), (60, [60]), (100, [60]), (1, [1] * 60)]
)
def test_batches(clean, size, sizes):
    batches = list(clean.batches(size))
    assert [len(batch) for batch in batches] == sizes
    assert [text for batch in batches for text in batch.prompts] == clean.prompts


def test_display(tokenizer):
    demo = IOIDataset.demo(tokenizer)
    assert repr(demo).startswith(
        "8 prompts (4 ABBA, 4 BABA), 15 tokens with BOS; the first 4:\n"
    )
    assert (
        "When John[S1] and[S1+1] Mary[IO] went to the shops, John[S2] gave the "
        "bag to[END]"
    ) in repr(demo)
    assert repr(demo[:1]).startswith("1 prompt (0 ABBA, 1 BABA), 15 tokens with BOS:\n")
    page = demo._repr_html_()
    assert (
        page.count("<li>") == 4
        and page.count("<sub>S2</sub>") == 4
        and "<|" not in page
    )


# --- the demo, and GPT-2's own tokenizer


def test_the_demo_prompts():
    assert [p.text for p in DEMO_PROMPTS[:2]] == [
        "When John and Mary went to the shops, John gave the bag to",
        "When John and Mary went to the shops, Mary gave the bag to",
    ]
    assert [(p.IO, p.S) for p in DEMO_PROMPTS[::2]] == [
        ("Mary", "John"),
        ("Tom", "James"),
        ("Dan", "Sid"),
        ("Martin", "Amy"),
    ]
    assert (
        DEMO_PROMPTS[4].text
        == "When Dan and Sid went to the shops, Sid gave an apple to"
    )
    assert (
        DEMO_PROMPTS[7].text
        == "After Martin and Amy went to the park, Martin gave a drink to"
    )
    for one, twin in zip(DEMO_PROMPTS[::2], DEMO_PROMPTS[1::2], strict=True):
        assert (
            prompts._counterfactual(one, "swap_subject", (), random.Random(0)) == twin
        )


def test_demo_tokens(tok):
    demo = IOIDataset.demo(tok)
    check_roles(tok, demo)
    assert demo.tokens.shape == (8, 15) and demo.lengths.tolist() == [15] * 8
    assert IOIDataset.demo(tok, bos=False).tokens.equal(demo.tokens[:, 1:])


@pytest.mark.parametrize("words", [NAMES, PLACES, OBJECTS])
def test_words_are_single_tokens(tok, words):
    assert single_token_names(tok, words) == words
    assert len(set(words)) == len(words)


@pytest.mark.gpt2_tokenizer
def test_gpt2_token_ids(gpt2_tokenizer):
    demo = IOIDataset.demo(gpt2_tokenizer)
    assert (
        demo.answers[0].tolist() == [5335, 1757] and (demo.tokens[:, 0] == 50256).all()
    )
    assert demo[0].text == "When John and Mary went to the shops, John gave the bag to"
    assert len(NAMES) >= 100


def test_single_token_names(tok):
    assert single_token_names(tok, [*NAMES[:5], "Lakshmi", "Mary Ann"]) == NAMES[:5]
    assert IOIDataset(tok, 5).names == NAMES


# --- what is refused


def bad(kind, message, **given):
    return pytest.param(given, kind, message, id=message[:40])


@pytest.mark.parametrize(
    "given, error, message",
    [
        bad(ValueError, "Lakshmi = ' ", names=["Mary", "John", "Lakshmi"]),
        bad(ValueError, "2 names given, at least 3 needed", names=["Mary", "John"]),
        bad(ValueError, "look at 'Mary'", names=["Mary", "Mary", "John", "Tom"]),
        bad(ValueError, "look at ' Mary'", names=[" Mary", "John", "Tom"]),
        bad(TypeError, "names must be a list of strings, not 'Mary'", names="Mary"),
        bad(TypeError, "names must be a list of strings", names=["Mary", "John", 3]),
        bad(ValueError, "0 templates given", templates=[]),
        bad(ValueError, "0 places given", places=[]),
        bad(ValueError, "0 objects given", objects=[]),
        bad(ValueError, "needs the slots", templates=["John gave Mary a ball"]),
        bad(
            ValueError,
            "in this order",
            templates=["When [S] met [A] and [B], he waved to"],
        ),
        bad(
            ValueError,
            "no other slot",
            templates=["When [A] and [B] met, [S] gave [C] to"],
        ),
        bad(
            ValueError,
            "once each, and no other",
            templates=["[PLACE] [PLACE] [A] and [B] met, [S] spoke to"],
        ),
        bad(
            ValueError,
            "need a space before",
            templates=["[A] and [B] met, [S] spoke to"],
        ),
        bad(
            ValueError,
            "Two roles fall on one token",
            templates=["When [A] [B] met, [S] spoke to"],
        ),
        bad(
            ValueError,
            "Two roles fall on one token",
            templates=["When [A] and [B] met, then came [S]"],
        ),
        bad(
            ValueError,
            "make only 6 different ones",
            names=NAMES[:3],
            templates=["So [A] and [B], [S] to"],
        ),
        bad(ValueError, "n is 0", n=0),
        bad(ValueError, "n is 2.5", n=2.5),
        bad(TypeError, "seed is 'x'", seed="x"),
        bad(TypeError, "seed is None", seed=None),
        bad(ValueError, "order is 'ABAB'", order="ABAB"),
        bad(TypeError, "unexpected keyword argument 'place'", place=["park"]),
    ],
)
def test_bad_arguments(tokenizer, given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        IOIDataset(tokenizer, **({"n": 20} | given))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"order": "AB"}, "'ABBA' (IO first) or 'BABA'"),
        ({"S": "Mary"}, "needs different names"),
        ({"IO": ""}, "needs different names"),
        ({"third": "John"}, "needs different names"),
        ({"place": ""}, "do not go together"),
        ({"object": ""}, "do not go together"),
        ({"template": "So [A] and [B] met, [S] spoke to"}, "do not go together"),
        ({"extra": "S1"}, "give 'IO' or 'S'"),
        (
            {
                "template": "Then [A] and [B] met, [S] gave the [OBJECT] to",
                "place": "",
                "extra": "S",
            },
            "with [PLACE]",
        ),
    ],
)
def test_bad_records(fields, message):
    good = dict(
        template=TEMPLATES[0],
        IO="Mary",
        S="John",
        order="ABBA",
        place="park",
        object="ball",
    )
    IOIPrompt(**good)
    with pytest.raises(ValueError, match=re.escape(message)):
        IOIPrompt(**(good | fields))


def test_no_tokenizer():
    with pytest.raises(ValueError, match="No tokenizer: got NoneType"):
        IOIDataset(None, 5)
    with pytest.raises(ValueError, match="No tokenizer: got SimpleNamespace"):
        IOIDataset(SimpleNamespace(tokenizer=None), 5)


def test_left_padding_is_refused(tokenizer):
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    with pytest.raises(ValueError, match="pads on the left.*padding_side = 'right'"):
        IOIDataset(left, 5)


def test_a_slow_tokenizer_is_refused():
    slow = SimpleNamespace(
        convert_ids_to_tokens=None, is_fast=False, padding_side="right"
    )
    with pytest.raises(ValueError, match="only fast tokenizers"):
        IOIDataset(slow, 5)


def test_no_bos_token(tokenizer):
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    with pytest.raises(ValueError, match="no BOS token; give bos=False"):
        IOIDataset(without, 5)
    assert len(IOIDataset(without, 5, bos=False)) == 5


def test_records_with_a_split_name_are_refused(tokenizer):
    record = IOIPrompt(TEMPLATES[0], "Lakshmi", "John", "ABBA", "park", "ball")
    with pytest.raises(ValueError, match="Lakshmi = ' "):
        IOIDataset.from_prompts(tokenizer, [record])
    with pytest.raises(ValueError, match="at least one"):
        IOIDataset.from_prompts(tokenizer, [])


@pytest.mark.parametrize("size", [0, -1, 2.5, "3"])
def test_bad_batch_sizes(clean, size):
    with pytest.raises(ValueError, match="number of prompts in a batch"):
        clean.batches(size)


def test_bad_counterfactuals(clean, tokenizer):
    with pytest.raises(ValueError, match="'swap_subjects'; did you mean swap_subject"):
        clean.counterfactual("swap_subjects")
    with pytest.raises(ValueError, match="'zzz'; did you mean swap_subject or abc or"):
        clean.counterfactual("zzz")
    with pytest.raises(ValueError, match="There is no counterfactual None"):
        clean.counterfactual(None)
    with pytest.raises(ValueError, match="three different names"):
        clean.counterfactual("abc").counterfactual("swap_subject")
    few = IOIDataset(tokenizer, 5, names=NAMES[:4])
    with pytest.raises(
        ValueError, match="abc needs 3 names that are not in the prompt; there are 2"
    ):
        few.counterfactual("abc")
    assert len(few.counterfactual("random_names")) == 5
    without_place = IOIDataset(
        tokenizer, 5, templates=["So [A] and [B] met, [S] spoke to"]
    )
    with pytest.raises(ValueError, match=re.escape("a template with [PLACE]")):
        without_place.counterfactual("extra_s")
