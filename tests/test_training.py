"""Training `tiny`: its data, that a run can be repeated and interrupted, and
the model that ships."""

import json
import random
import re
import resource
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from typer.testing import CliRunner

from ioi_course import cli
from ioi_course.bundled import training
from ioi_course.bundled.training import (
    LOG,
    STATE,
    TINY,
    TrainingError,
    held_out_prompts,
    loss_curve,
    loss_of,
    new_model,
    read_log,
    score_table,
    scores,
    start,
    train,
    train_step,
    write_model,
)
from ioi_course.bundled.training_data import (
    HELD_OUT_TEMPLATES,
    IGNORED,
    LONGEST,
    STORIES,
    TRAIN_TEMPLATES,
    Lesson,
    Recipe,
    abc_text,
    held_out_pair,
    ioi_text,
    story_text,
    training_batch,
)
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.templates import NAMES, OBJECTS, PLACES, TEMPLATES

LESSONS = (
    Lesson(5, ioi=0.8, abc=0.2),
    Lesson(12, ioi=0.4, abc=0.2, story=0.4, repeats=2),
)
SMALL = Recipe(LESSONS, batch=12, warmup=3, save_every=4, shape=(2, 2, 32, 32))
LATER = Recipe().lessons[-1].until - 7  # a step that shows everything
runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


def names_in(text: str) -> list[str]:
    return [word for word in re.findall(r"[A-Za-z]+", text) if word in NAMES]


def many(kind, count=400):
    rng = random.Random(5)
    return [kind(rng) for _ in range(count)]


def assert_same_runs(a, b):
    assert a.log == b.log and a.step == b.step
    for first, second in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert first.equal(second)
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert a.optimiser.state[first][moment].equal(
                b.optimiser.state[second][moment]
            )


# --- data -----------------------------------------------------------------------------


def test_ioi_sentences_have_the_name_that_occurred_once_as_answer():
    orders, ends = Counter(), Counter()
    for text in many(ioi_text):
        *context, answer = names_in(text)[:4]
        assert (
            len(context) == 3
            and Counter(context)[answer] == 1
            and len(set(context)) == 2
        )
        rest = text.split(f" to {answer}.")[1]
        told = names_in(rest)
        assert context[2] != answer and (
            rest == ""
            or (set(told) == set(context) and "told" in rest and len(told) == 2)
        )
        orders[context[0] == answer] += 1
        ends[rest and told[0] == answer] += 1
    assert min(orders.values()) > 150 and ends[""] > 150, (
        "both orders are about as frequent, and no second sentence"
    )
    assert min(ends[True], ends[False]) > 70, "either of the two tells the other"


def test_abc_sentences_end_with_either_of_the_first_two():
    answers = Counter()
    for text in many(abc_text):
        *context, answer = names_in(text)
        assert len(set(context)) == 3 and answer in context[:2]
        answers[context.index(answer)] += 1
    assert min(answers.values()) > 150


def test_stories_are_filled():
    texts = many(story_text)
    assert not any(slot in text for text in texts for slot in "[]")
    assert any(
        any(place in text for place in PLACES)
        and any(thing in text for thing in OBJECTS)
        for text in texts
    )
    assert len({re.sub(r"[A-Z]\w+", "", story) for story in STORIES}) == len(STORIES)


@pytest.mark.parametrize("kind", [ioi_text, abc_text, story_text])
def test_nothing_that_is_held_out_is_shown(kind):
    patterns = [
        re.sub(r"\\\[[A-Z]+\\\]", r"\\w+", re.escape(template))
        for template in HELD_OUT_TEMPLATES
    ]
    assert re.search(
        patterns[0],
        "Yesterday Mary and John met near the park, and John offered the ball to Mary.",
    )
    for text in many(kind, 800):
        names = sorted(set(names_in(text)))
        assert not any(held_out_pair(a, b) for a in names for b in names if a < b), text
        assert not any(re.search(pattern, text) for pattern in patterns), text


def test_held_out_is_what_it_says():
    assert len(HELD_OUT_TEMPLATES) == 3 and set(HELD_OUT_TEMPLATES) | set(
        TRAIN_TEMPLATES
    ) == set(TEMPLATES)
    assert not set(HELD_OUT_TEMPLATES) & set(TRAIN_TEMPLATES)
    for name in NAMES:
        partners = [
            other for other in NAMES if other != name and held_out_pair(name, other)
        ]
        assert (
            all(held_out_pair(other, name) for other in partners)
            and 9 <= len(partners) <= 13
        ), name
    with pytest.raises(ValueError, match="not in tuple"):
        held_out_pair("Mary", "Zebulon")


def test_the_words_of_the_examination_are_in_the_training_text(tokenizer):
    """Otherwise the examination would be one in words that mean nothing yet."""
    # repeated tokens show any token
    recipe = Recipe(lessons=(Lesson(90, ioi=0.6, story=0.4),))
    shown = {
        t
        for step in range(90)
        for t in training_batch(recipe, step, tokenizer)[0].flatten().tolist()
    }
    asked = set(held_out_prompts(tokenizer).tokens.flatten().tolist())
    assert not {tokenizer.decode([t]) for t in asked - shown}


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("templates", [True, False])
def test_held_out_prompts(tokenizer, pairs, templates):
    data = held_out_prompts(tokenizer, 100, seed=3, pairs=pairs, templates=templates)
    assert (
        len(data) == len(set(data.prompts)) == 100
        and sum(p.order == "ABBA" for p in data) == 50
    )
    assert all(
        held_out_pair(p.IO, p.S) == pairs
        and (p.template in HELD_OUT_TEMPLATES) == templates
        for p in data
    )
    assert data.prompts == held_out_prompts(tokenizer, 100, 3, pairs, templates).prompts
    assert data.prompts != held_out_prompts(tokenizer, 100, 4, pairs, templates).prompts


@pytest.mark.parametrize("n", [0, 1, 3, 2.0])
def test_held_out_prompts_wants_an_even_number(tokenizer, n):
    with pytest.raises(ValueError, match="even number"):
        held_out_prompts(tokenizer, n)


@pytest.mark.parametrize(("step", "repeated"), [(7, 0), (LATER, 4)])
def test_batch(tokenizer, step, repeated):
    tokens, labels = training_batch(Recipe(), step, tokenizer)
    assert tokens.shape == labels.shape and len(tokens) == Recipe().batch
    assert (
        tokens[:, 0].eq(tokenizer.bos_token_id).all()
        and labels[:, -1].eq(IGNORED).all()
    )
    assert tokens.shape[1] <= Recipe().shape[-1]
    has = labels != IGNORED
    assert labels[:, :-1][has[:, :-1]].equal(tokens[:, 1:][has[:, :-1]]), (
        "a label is the next token"
    )
    assert not labels.eq(tokenizer.pad_token_id).any(), "padding is never a label"
    assert (labels[:, 0] == IGNORED).sum() == repeated
    sentences = Recipe().batch - repeated
    for row, label in zip(tokens[:sentences], labels[:sentences], strict=True):
        text = tokenizer.decode(row[1 : (label != IGNORED).sum() + 1])
        assert (
            text.endswith(".") and label[(label != IGNORED).sum() :].eq(IGNORED).all()
        )


def test_the_longest_text_fits(tokenizer):
    lengths = {
        len(row)
        for kind in (ioi_text, abc_text, story_text)
        for row in tokenizer(many(kind, 4000))["input_ids"]
    }
    assert max(lengths) == LONGEST <= Recipe().shape[-1]


def test_the_first_steps_show_the_task_alone(tokenizer):
    def stories(step):
        """How many sentences of a step are of no template."""
        tokens, labels = training_batch(Recipe(), step, tokenizer)
        texts = tokenizer.batch_decode(
            tokens[labels[:, 0] != IGNORED], skip_special_tokens=True
        )
        return sum(
            not any(re.match(pattern, text) for pattern in patterns) for text in texts
        )

    patterns = [
        re.sub(r"\\\[[A-Z]+\\\]", r"\\w+", re.escape(template))
        for template in TRAIN_TEMPLATES
    ]
    assert (
        sum(stories(step) for step in range(0, Recipe().lessons[0].until, 50))
        == 0
        < stories(LATER)
    )


def test_repeats_have_labels_where_they_can_be_known(tokenizer):
    tokens, labels = (each[-4:] for each in training_batch(Recipe(), LATER, tokenizer))
    n = int((labels[0] != IGNORED).sum()) + 1
    assert tokens[:, 1 : n + 1].equal(tokens[:, n + 1 : 2 * n + 1]) and 4 <= n <= 15
    assert (
        labels[:, n + 1 : 2 * n].equal(tokens[:, 2 : n + 1])
        and labels[:, : n + 1].eq(IGNORED).all()
    )
    assert all(len(set(row.tolist())) == n for row in tokens[:, 1 : n + 1])


def test_batches_depend_on_seed_and_step_only(tokenizer):
    def text(recipe, step):
        return training_batch(recipe, step, tokenizer)[0].tolist()

    torch.manual_seed(1)
    random.seed(1)
    first = text(SMALL, 0)
    torch.manual_seed(2)
    random.seed(2)
    assert text(SMALL, 0) == first and text(replace(SMALL, lr=1.0), 0) == first
    assert text(SMALL, 1) != first and text(replace(SMALL, seed=1), 0) != first


# --- the objective --------------------------------------------------------------------


def test_loss_is_the_mean_over_labels(tokenizer):
    run = start(SMALL)
    tokens, labels = training_batch(SMALL, 0, tokenizer)
    model = run.model.eval()
    with torch.no_grad():
        losses = []
        for row, label in zip(tokens, labels, strict=True):
            length = int((label != IGNORED).nonzero().max()) + 2
            # without padding
            log_probs = model(row[None, :length]).logits[0].double().log_softmax(-1)
            losses += [
                -log_probs[i, label[i]].item()
                for i in range(length)
                if label[i] != IGNORED
            ]
        assert loss_of(model, tokens, labels).item() == pytest.approx(
            np.mean(losses), abs=1e-4
        )


def test_train_step_is_plain_adamw(tokenizer):
    """Against torch's own loop."""
    recipe = SMALL
    run, model = start(recipe), new_model(recipe, tokenizer)
    plain = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    for step in range(3):
        tokens, labels = training_batch(recipe, step, tokenizer)
        logits = model.train()(tokens, labels=None).logits
        loss = torch.nn.CrossEntropyLoss(ignore_index=IGNORED)(
            logits.transpose(1, 2), labels
        )
        plain.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in plain.param_groups:
            group["lr"] = recipe.lr_at(step)
        plain.step()
        assert train_step(run) == pytest.approx(loss.item(), abs=1e-5)
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=0)  # against a learning rate of 5e-4


def test_learning_rate():
    recipe = Recipe()
    rates = np.array([recipe.lr_at(step) for step in range(recipe.steps)])
    top = int(np.argmax(rates))
    assert abs(top - recipe.warmup) <= 1 and 0.98 * recipe.lr < rates[top] <= recipe.lr
    assert (
        np.all(np.diff(rates[: top + 1]) > 0)
        and np.all(np.diff(rates[top:]) < 0)
        and 0 < rates[-1] < 1e-6
    )


def test_training_leaves_the_generators_and_threads_alone(tmp_path):
    torch.manual_seed(3)
    random.seed(3)
    before = (
        torch.get_rng_state(),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    with torch.no_grad():
        # also where gradients are off, as in the lessons
        train(tmp_path, SMALL, until=2)
    after = (
        torch.get_rng_state(),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    assert before[0].equal(after[0]) and before[1:] == after[1:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lessons": ()},
        {"lessons": (Lesson(0, ioi=1.0),)},
        {"lessons": (Lesson(9, ioi=1.0), Lesson(9, ioi=1.0))},
        {"lessons": (Lesson(9, ioi=0.0),)},
        {"lessons": (Lesson(9, ioi=1.1, abc=-0.1),)},
        {"lessons": (Lesson(9, ioi=1.0, repeats=33),)},
        {"batch": 0},
        {"warmup": 1.5},
        {"save_every": -1},
        {"shape": (2, 3, 32, 32)},
        {"shape": (0, 2, 32, 32)},
        {"shape": (2, 2, 32, 20)},
    ],
    ids=str,
)
def test_recipe_refuses_what_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


# --- the same again, and interrupted --------------------------------------------------


def test_the_shipped_run_begins_with_the_same_losses(tmp_path):
    """Twenty steps of the whole recipe twice: equal bit by bit; and those of the
    shipped log, on any machine nearly."""
    first, second = (train(tmp_path / name, Recipe(), until=20) for name in "ab")
    assert_same_runs(first, second)
    shipped = read_log(TINY).loss[:20].tolist()
    assert [row["loss"] for row in first.log] == pytest.approx(shipped, abs=2e-3)


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_interrupted_and_resumed_is_the_same(tmp_path, stop):
    whole = train(tmp_path / "whole", SMALL)
    train(tmp_path / "parts", SMALL, until=stop)
    resumed = train(tmp_path / "parts", SMALL)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]
    resumed.log = whole.log  # it has the scores of the step it stopped at as well
    assert_same_runs(whole, resumed)


def test_killed_between_two_saves(tmp_path):
    class Killed(BaseException):
        pass

    def kill(run):
        if run.step == 6:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "parts", SMALL, on_step=kill)
    with safe_open(tmp_path / "parts" / STATE, "pt") as file:
        assert file.metadata()["step"] == "4"
    steps = []
    resumed = train(
        tmp_path / "parts", SMALL, on_step=lambda run: steps.append(run.step)
    )
    assert steps == list(range(5, 13))
    assert_same_runs(train(tmp_path / "whole", SMALL), resumed)


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(tmp_path, SMALL)
    run = train(tmp_path, SMALL, on_step=lambda run: pytest.fail("it was finished"))
    assert run.step == 12 and len(run.log) == 12


@pytest.fixture
def file_limit():
    """Sets how many bytes a file may have, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_leaves_the_state_before(tmp_path, file_limit):
    train(tmp_path, SMALL, until=4)
    size = (tmp_path / STATE).stat().st_size
    file_limit(size // 2)
    with pytest.raises(TrainingError, match="Step 8 could not be saved.*train again"):
        train(tmp_path, SMALL)
    file_limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOG, STATE]
    assert (tmp_path / STATE).stat().st_size == size
    resumed = train(tmp_path, SMALL)
    whole = train(tmp_path / "whole", SMALL)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]


def test_states_that_cannot_be_used(tmp_path):
    train(tmp_path, SMALL, until=2)
    with pytest.raises(
        TrainingError, match=r"another recipe, with \{'lr': 0.0005\}.*another folder"
    ):
        train(tmp_path, replace(SMALL, lr=0.5))
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="cannot be read.*Delete it"):
        train(tmp_path, SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="could not be saved"):
        train(tmp_path / "file" / "below", SMALL, until=1)


@pytest.mark.parametrize("until", [0, -3, 1.5])
def test_until_is_checked(tmp_path, until):
    with pytest.raises(ValueError, match="until"):
        train(tmp_path, SMALL, until=until)


# --- what a run writes ----------------------------------------------------------------


def test_written_model_loads_and_scores_as_its_card_says(tmp_path):
    run = train(tmp_path / "run", SMALL)
    table = write_model(run, tmp_path / "model")
    model = load_model(tmp_path / "model", device="cpu", dtype=torch.float64)
    assert np.allclose(score_table(model, model.tokenizer), table, atol=1e-3, rtol=0)
    card = (tmp_path / "model" / "README.md").read_text()
    assert all(
        f"| {label} | {row.iloc[0]:.3f} | {row.iloc[1]:.3f}" in card
        for label, row in table.iterrows()
    )
    assert read_log(tmp_path / "model").loss.tolist() == [
        row["loss"] for row in run.log
    ]
    assert run.model.dtype == torch.float32, "the run itself keeps its precision"


def test_command(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Recipe", lambda: SMALL)
    result = runner.invoke(cli.app, ["train", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "12 steps" in result.output and "a minute" in result.output
    assert "Ctrl-C" in result.output and "same command" in result.output
    assert "both held out" in result.output and "load_model(" in result.output
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", LOG} <= {
        path.name for path in (tmp_path / "model").iterdir()
    }
    monkeypatch.setattr(training, "Recipe", lambda: replace(SMALL, lr=1.0))
    result = runner.invoke(cli.app, ["train", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "another recipe" in result.output


def test_command_interrupted(tmp_path, monkeypatch):
    def interrupted(folder, recipe, until, on_step):
        train(folder, recipe, until=4, on_step=on_step)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "Recipe", lambda: SMALL)
    monkeypatch.setattr(training, "train", interrupted)
    result = runner.invoke(cli.app, ["train", "--out", str(tmp_path)])
    assert result.exit_code == 130 and "same command goes on" in result.output
    monkeypatch.setattr(training, "train", train)
    result = runner.invoke(cli.app, ["train", "--out", str(tmp_path), "--until", "6"])
    assert result.exit_code == 0 and "going on after step 4" in result.output
    assert "6 of 12 steps" in (tmp_path / "model" / "README.md").read_text()


# --- the model that ships -------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", device="cpu")


def test_shipped_files():
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 6e6
    with safe_open(TINY / "model.safetensors", "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}
    assert kinds == {torch.float16}
    assert (
        json.loads((TINY / "config.json").read_text())["n_positions"]
        == Recipe().shape[-1]
    )
    log = read_log(TINY)
    assert log.index.tolist() == list(range(1, Recipe().steps + 1))
    assert log.p_io.notna().sum() == Recipe().steps // Recipe().save_every


def test_shipped_model_solves_the_task_and_the_card_says_how_well(tiny):
    table = score_table(tiny, tiny.tokenizer)
    assert (
        table.accuracy.round(3).tolist() == [1, 1, 0.95, 0.975]
        and (table.logit_diff > 4).all()
    )
    assert (table.p_io[:2] > 0.9).all() and (table.p_io[2:] > 0.65).all(), (
        "less sure in templates that it has not seen"
    )
    card = (TINY / "README.md").read_text()
    for label, row in table.iterrows():
        written = next(
            line for line in card.splitlines() if line.startswith(f"| {label} |")
        ).split("|")[2:5]
        assert [float(value) for value in written] == pytest.approx(
            row.tolist(), abs=2e-3
        )


def test_shipped_model_on_the_course_prompts(tiny):
    """All templates, all pairs: what the chapters will ask."""
    assert scores(tiny, IOIDataset(tiny, 200, seed=11))["accuracy"] >= 0.99


def test_shipped_tokenizer_is_that_of_synthetic(tiny, tokenizer):
    assert tiny.tokenizer.get_vocab() == tokenizer.get_vocab()
    text = "When Mary and John went to the store, John gave a drink to Mary."
    assert tiny.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_loss_curve():
    curve = loss_curve(read_log(TINY))
    assert curve.table.index.tolist() == list(range(100, Recipe().steps + 1, 100))
    surprise = curve.table["IO, held out"]
    assert surprise.iloc[-1] < 0.4 < 5 < surprise.iloc[0] and "tiny" in repr(curve)
    log = pd.DataFrame(
        {"loss": [4.0, 2.0, 3.0, 1.0], "p_io": [None, 0.5, None, 1.0]},
        index=[1, 2, 3, 4],
    )
    assert loss_curve(log, every=2).table.to_numpy().tolist() == [
        [3.0, 0.693],
        [2.0, 0.0],
    ]
