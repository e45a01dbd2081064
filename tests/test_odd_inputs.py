"""Inputs that users really have: few bits, other tokenizers, padding nobody embeds,
NumPy's numbers, texts too long."""

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ioi_course.ablation import ablate
from ioi_course.attribution import direct_attribution, source_attribution
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.checks.core import hf_model_of, random_data, random_of
from ioi_course.heads import head_scores, repeated_tokens
from ioi_course.lens import residual_lens, vocabulary_lens
from ioi_course.metrics import logit_diff, next_tokens, single_token
from ioi_course.models import in_cache, load_model, wrap_model
from ioi_course.movers import copy_scores, name_projection
from ioi_course.prompts import IOIDataset, single_token_names
from ioi_course.signals import split_signals
from ioi_course.statistics import bootstrap
from ioi_course.templates import NAMES, OBJECTS, PLACES, TEMPLATES, IOIPrompt
from ioi_course.transplant import stranger_prompts, transplant

# --- few bits (shared/cases/08) ---

# how far a logit may be off, in shares of the largest, or of 1
HALVES = {torch.bfloat16: 0.15, torch.float16: 0.03}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["tiny", "llama"])
def test_half_precision_says_what_full_precision_says(name, dtype):
    half = (
        load_model(name, dtype=dtype)
        if name == "tiny"
        else random_of(name, dtype=dtype)
    )
    whole = (
        load_model(name, dtype=torch.float32)
        if name == "tiny"
        else random_of(name, dtype=torch.float32)
    )
    data = IOIDataset(whole, 8, seed=1)
    tools = {
        "parts": lambda m: direct_attribution(m, data).values,
        "heads": lambda m: direct_attribution(m, data, by="head").values,
        "neurons": lambda m: direct_attribution(m, data, by="neuron").values,
        "sources": lambda m: source_attribution(m, data, [(1, 0), (2, 1)]).values,
        "zero": lambda m: ablate(m, data, [(1, 0)], "zero").after,
        "mean": lambda m: ablate(m, data, [(1, 0)], "mean").after,
        "lens": lambda m: residual_lens(m, data, scale="final").values,
        "own": lambda m: residual_lens(m, data).values,
        "projection": lambda m: name_projection(m, data).projection,
        "copy": lambda m: copy_scores(m, progress=False).logit(),
        "transplant": lambda m: (
            transplant(m, data, stranger_prompts(data), [(2, 1)]).written
        ),
        "signals": lambda m: split_signals(m, data, [(1, 0)], progress=False).weights,
    }
    for what, tool in tools.items():
        found, expected = tool(half), tool(whole)
        off = (
            found.double() - expected.double()
        ).abs().max() / expected.abs().max().clamp(min=1)
        assert found.dtype.itemsize >= 4 and off < HALVES[dtype], (what, off)


def test_a_difference_of_logits_in_half_precision_is_not_rounded_again():
    data = IOIDataset(load_model("synthetic"), 2)
    logits = torch.zeros(2, 1306, dtype=torch.bfloat16)
    (
        logits[torch.arange(2), data.answers[:, 0]],
        logits[torch.arange(2), data.answers[:, 1]],
    ) = 20.125, 0.0703125
    assert logit_diff(logits, data).item() == 20.125 - 0.0703125


# --- a tokenizer that puts a space before every text (shared/cases/09) ---


def space_adding(words) -> PreTrainedTokenizerFast:
    """As SentencePiece models of the Llama 2 kind have it: whole words are tokens,
    everything else is characters."""
    known = sorted({"▁" + word for word in words})
    vocab = {
        token: i
        for i, token in enumerate(["<unk>", "<s>", "</s>", "▁", *known, *".,'"])
    }
    texts = [
        word
        for pool in (NAMES, PLACES, OBJECTS, *map(str.split, TEMPLATES))
        for word in pool
    ]
    for letter in sorted({letter for text in texts for letter in text}):
        vocab.setdefault(letter, len(vocab))
    merges, seen = [], set()
    for token in known:
        left = token[0]
        for letter in token[1:]:
            if (left, letter) not in seen:
                seen.add((left, letter))
                merges.append((left, letter))
            left += letter
            vocab.setdefault(left, len(vocab))
    raw = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True)
    )
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "padding_side": "right",
    }
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


WORDS = {
    word.strip(",.'")
    for template in TEMPLATES
    for word in template.split()
    if "[" not in word
}


def test_names_are_found_where_they_stand():
    tokenizer = space_adding({*NAMES, *PLACES, *OBJECTS, *WORDS, "the"})
    assert single_token_names(tokenizer) == NAMES
    data = IOIDataset(tokenizer, 6)
    for i, record in enumerate(data):
        tokens = tokenizer.convert_ids_to_tokens(data.tokens[i].tolist())
        assert [tokens[data.pos[role][i]] for role in ("IO", "S1", "S2")] == [
            f"▁{record.IO}"
        ] + [f"▁{record.S}"] * 2
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = wrap_model(LlamaForCausalLM(config), tokenizer, "space-adding")
    assert len(copy_scores(model, progress=False).names) == len(NAMES)
    mary = single_token(model, " Mary")
    assert (
        mary
        == tokenizer.convert_tokens_to_ids("▁Mary")
        == data.tokenizer.encode("the Mary")[-1]
    )
    assert next_tokens(model, data.prompts[0], " Mary").rank is not None


def test_a_tokenizer_that_cuts_names_says_so():
    with pytest.raises(
        ValueError,
        match=rf"cuts names into pieces \({NAMES[0]} = .*names=\[...\] that are "
        r"one token",
    ):
        IOIDataset(space_adding({*PLACES, *OBJECTS, *WORDS, "the"}), 4)


# --- padding that has no embedding ---


@pytest.mark.parametrize("eos", ["<|end|>", None])
def test_a_padding_token_outside_the_embedding_is_not_used(eos):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"pad_token": "<pad of my own>", **({"eos_token": eos} if eos else {})}
    )
    model = wrap_model(hf_model_of("llama"), tokenizer, "padded")
    assert tokenizer.pad_token_id >= model.cfg.d_vocab
    data = IOIDataset(model, 8)
    assert len(data.lengths.unique()) > 1 and data.tokens.max() < model.cfg.d_vocab
    other = data.counterfactual("abc")[2:]
    assert other.tokens.max() < model.cfg.d_vocab
    assert torch.isfinite(direct_attribution(model, data).values).all()


# --- templates (shared/cases/11) ---


@pytest.mark.parametrize("end", [" ", "\n", "\t", "\u00a0", "  "])
def test_a_template_that_ends_in_white_space_is_refused(end):
    template = "When [A] and [B] went to the [PLACE], [S] gave the [OBJECT] to"
    with pytest.raises(ValueError, match="ends in white space"):
        IOIPrompt(template + end, "Mary", "John", "ABBA", "store", "ball")
    with pytest.raises(ValueError, match="ends in white space|without spaces around"):
        IOIDataset(load_model("synthetic"), 2, templates=[template + end])
    assert IOIPrompt(template, "Mary", "John", "ABBA", "store", "ball").text.endswith(
        " to"
    )


# --- texts longer than the context ---


@pytest.mark.parametrize("read", [next_tokens, vocabulary_lens])
def test_a_text_longer_than_the_context_is_refused(read):
    model = random_of("llama")
    text = " ".join(["When Mary and John went to the store"] * 20)
    with pytest.raises(ValueError, match=r"tokens, and the model reads 64 at most"):
        read(model, text)
    assert read(model, "When Mary and John went to the store")


# --- NumPy's numbers ---


def test_numpy_numbers_are_numbers():
    model = random_of("llama")
    eight, one = np.int64(8), np.int32(1)
    data = IOIDataset(model, eight, seed=np.int64(3))
    assert data.prompts == IOIDataset(model, 8, seed=3).prompts
    assert (
        data.counterfactual("abc", seed=one).prompts
        == data.counterfactual("abc", seed=1).prompts
    )
    assert len(list(data.batches(np.int64(4)))) == 2 and isinstance(
        data[np.int64(2)], IOIPrompt
    )
    assert len(direct_attribution(model, data, by="head").top(np.int64(3))) == 3
    assert len(next_tokens(model, data.prompts[0], k=np.int64(2)).table) == 2
    assert vocabulary_lens(model, data.prompts[0], k=np.uint8(2)).probs.shape[2] == 2
    tokens = repeated_tokens(model, n=np.int64(5), batch=np.int64(2), seed=np.int64(1))
    assert torch.equal(
        tokens.tokens, repeated_tokens(model, n=5, batch=2, seed=1).tokens
    )
    assert len(head_scores(model, tokens).top(np.int64(2))) == 2
    assert ablate(model, data, [(np.int64(2), one)], "zero").after.shape == (8,)
    assert source_attribution(model, data, [(np.int64(2), one)]).values.shape[1] == 1
    bootstrap(torch.mean, torch.randn(9), draws=np.int64(20), seed=np.int64(1))
    for wrong in (0, np.int64(0), 2.0, "2", np.float64(2)):
        with pytest.raises(ValueError, match="give the number of rows"):
            direct_attribution(model, data, by="head").top(wrong)


# --- a cache that was copied without refs/main ---


def test_a_snapshot_without_refs_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not in_cache("somebody/llama")
    snapshots = tmp_path / "models--somebody--llama" / "snapshots"
    (snapshots / "0broken").mkdir(parents=True)
    (snapshots / "0broken" / "config.json").write_text("{}")
    hf_model_of("llama", dtype=torch.float32).save_pretrained(snapshots / "1whole")
    build_tokenizer().save_pretrained(snapshots / "1whole")
    assert in_cache("somebody/llama")
    data = random_data(load_model("somebody/llama"), 2)
    assert len(data) == 2
    (tmp_path / "models--somebody--llama" / "refs").mkdir()
    (tmp_path / "models--somebody--llama" / "refs" / "main").write_text("0broken")
    assert not in_cache("somebody/llama")


# --- configurations that TransformerLens does not know ---


def test_a_model_that_transformer_lens_gets_wrong_is_refused():
    with pytest.raises(ValueError, match="log-probabilities that differ by up to"):
        random_of("gpt2", scale_attn_weights=False)
    assert random_of("gpt2", scale_attn_by_inverse_layer_idx=True).loaded.processing
