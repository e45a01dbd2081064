"""The head wiki of many models: the same rows wherever they are measured, kept,
resumed, and whole when things die."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import distributed
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from ioi_course import cli, universality, wiki_records, wiki_workers
from ioi_course.batches import cached_batches
from ioi_course.bundled.vocabulary import build_tokenizer
from ioi_course.heads import (
    KINDS,
    head_scores,
    head_wiki,
    load_wiki,
    repeated_tokens,
    save_wiki,
)
from ioi_course.metrics import logit_diff
from ioi_course.models import load_model
from ioi_course.prompts import IOIDataset
from ioi_course.universality import Wiki, wiki

SMALL = {"n": 12, "batch": 2, "prompts": 4, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random models in Hugging Face format: two like GPT-2, one GPT-NeoX, one Llama
    with grouped queries."""
    root, tokenizer = tmp_path_factory.mktemp("models"), build_tokenizer()
    size, bos = len(tokenizer), tokenizer.bos_token_id
    gpt2 = {"vocab_size": size, "bos_token_id": bos, "eos_token_id": bos}
    other = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "wide": GPT2LMHeadModel(
                GPT2Config(n_embd=64, n_layer=3, n_head=8, n_positions=128, **gpt2)
            ),
            "deep": GPT2LMHeadModel(
                GPT2Config(n_embd=32, n_layer=8, n_head=2, n_positions=64, **gpt2)
            ),
            "neox": GPTNeoXForCausalLM(
                GPTNeoXConfig(num_hidden_layers=3, max_position_embeddings=64, **other)
            ),
            "llama": LlamaForCausalLM(
                LlamaConfig(
                    num_hidden_layers=2,
                    num_key_value_heads=2,
                    max_position_embeddings=64,
                    **other,
                )
            ),
        }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def names(folder):
    return [str(folder / name) for name in ("wide", "deep", "neox", "llama")]


@pytest.fixture(scope="module")
def serial(names):
    return wiki(["synthetic", *names], **SMALL)


def pretended(name, settings):
    """A record of one head, without loading anything."""
    facts = {"layers": 1, "heads": 1, "accuracy": None, "logit_diff": None, "note": ""}
    row = [0, 0, 0.1, 0.2, 1 / 3, 0.4, "", "", name, str(settings)]
    return {
        "model": name,
        "facts": facts,
        "rows": {"index": ["L0H0"], "columns": universality._COLUMNS, "data": [row]},
    }


def measured(monkeypatch, measure=wiki_records._measure):
    """The models that are measured from now on, in this process."""
    seen = []
    monkeypatch.setattr(
        wiki_records,
        "_measure",
        lambda name, given: (seen.append(name), measure(name, given))[1],
    )
    return seen


def test_rows_are_those_of_head_wiki(serial, names):
    assert serial.models.index.tolist() == [
        "synthetic",
        *(f"{n} (local folder)" for n in ("wide", "deep", "neox", "llama")),
    ]
    assert serial.models["layers"].tolist() == [12, 3, 8, 3, 2] and serial.models[
        "heads"
    ].tolist() == [12, 8, 2, 4, 4]
    assert len(serial.heads) == 144 + 24 + 16 + 12 + 8
    for name, label in zip(["synthetic", *names], serial.models.index, strict=True):
        # with processed weights: the scores must not depend on them
        model = load_model(name)
        direct = head_wiki(model, head_scores(model, repeated_tokens(model, 12, 2)))
        mine = serial.heads[serial.heads["model"] == label]
        pd.testing.assert_frame_equal(mine, direct, rtol=0, atol=1e-5)
        data = IOIDataset(model, 4)
        ((_, logits, _),) = cached_batches(model, data, [])
        assert serial.models["logit_diff"][label] == pytest.approx(
            logit_diff(logits, data).item(), abs=1e-4
        )
    assert (
        serial.models["accuracy"]["synthetic"] == 1
        and (serial.models["came from"] == "measured").all()
    )
    assert serial.heads.query("model == 'synthetic'")["class"].ne("").sum() == 26


def test_count_and_files(serial, tmp_path):
    count = serial.count()
    assert count.loc["synthetic"].to_dict() == {
        "previous": 2,
        "duplicate": 3,
        "induction": 4,
    }
    assert (count.iloc[1:] == 0).all(axis=None) and list(count.columns) == list(KINDS)
    score = serial.heads.loc[
        serial.heads["model"] == "wide (local folder)", "previous"
    ].max()
    assert serial.count(score).loc["wide (local folder)", "previous"] == 1
    for threshold in (0, 1.5, -1):
        with pytest.raises(ValueError, match="from 0 to 1"):
            serial.count(threshold)
    save_wiki(serial.heads, tmp_path / "all.csv")
    pd.testing.assert_frame_equal(
        load_wiki(tmp_path / "all.csv"), serial.heads, check_exact=True
    )
    assert "synthetic" in repr(serial) and "<table" in serial._repr_html_()


def test_mosaic(serial, tmp_path):
    plot = serial.plot("induction")
    assert "synthetic max L5H5 1.00" in plot.summary
    # the synthetic model's tile: 150 pixels for 12 heads and layers
    assert plot.svg.count("scale(12.5 12.5)") == 1
    assert plot.svg.count("<text") > 20 and "wide (local folder)" in plot.svg
    traces = {
        trace.hovertemplate.split(" %")[0]: np.array(trace.z)
        for trace in plot.figure.data
    }
    assert traces["synthetic"].shape == (12, 12) and traces[
        "deep (local folder)"
    ].shape == (8, 2)
    assert traces["synthetic"][5, 5] == 1 and plot.table.loc["synthetic L5", "H5"] == 1
    assert plot.table.loc["deep (local folder) L0", "H5"] == ""
    plot.save(tmp_path / "mosaic.svg")
    with pytest.raises(ValueError, match="no score 'copy'"):
        serial.plot("copy")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"where": "cloud"}, "where is 'cloud'"),
        ({"jobs": 2}, "jobs is 2"),
        ({"where": "processes", "jobs": 0}, "jobs is 0"),
        ({"n": 1}, "n is 1"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"prompts": 0}, "prompts is 0"),
        ({"n": True}, "n is True"),
    ],
)
def test_refused(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        wiki(["synthetic"], **{**SMALL, **options})


@pytest.mark.parametrize("models", ["synthetic", [], ()])
def test_models_must_be_a_list(models):
    with pytest.raises(ValueError, match="give a list of names"):
        wiki(models)


def test_folders_of_one_name(folder, tmp_path):
    (tmp_path / "wide").mkdir()
    with pytest.raises(ValueError, match="Two of the folders are called 'wide'"):
        wiki([str(folder / "wide"), str(tmp_path / "wide")])


def test_one_bad_model_does_not_lose_the_others(names, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    found = wiki(
        ["no such model", str(empty), names[0], names[0]],
        **SMALL,
        cache=tmp_path / "cache",
    )
    assert found.models["came from"].tolist() == ["failed", "failed", "measured"]
    assert (
        "There is no model" in found.models["note"].iloc[0]
        and "config.json" in found.models["note"].iloc[1]
    )
    assert (
        set(found.heads["model"]) == {"wide (local folder)"} and len(found.heads) == 24
    )
    assert len(list((tmp_path / "cache").iterdir())) == 1, "a failure is not kept"
    nothing = wiki(["no such model"], **SMALL)
    assert len(nothing.heads) == 0 and list(nothing.heads.columns) == list(
        found.heads.columns
    )
    with pytest.raises(ValueError, match="no heads to show"):
        nothing.plot()


def test_a_tokenizer_without_the_names(tmp_path):
    """The heads are measured; of the task there is a note instead of numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = Tokenizer(
        models.WordLevel({f"w{i}": i for i in range(200)} | {"?": 200}, unk_token="?")
    )
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=201, n_embd=16, n_layer=2, n_head=2, n_positions=21)
        )
    model.save_pretrained(tmp_path / "words")
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?").save_pretrained(
        tmp_path / "words"
    )
    found = wiki([str(tmp_path / "words")], **SMALL)
    row = found.models.iloc[0]
    assert row["came from"] == "measured" and row["note"].startswith("no IOI prompts")
    assert np.isnan(row["accuracy"]) and np.isnan(row["logit_diff"])
    assert (
        found.heads["measured on"].iloc[0]
        == "2 × BOS + 10 random tokens of seed 0 + the same again"
    )


def test_cache_resumes_after_an_interruption(names, serial, tmp_path, monkeypatch):
    seen, real = [], wiki_records._measure

    def stops_in_the_third(name, settings):
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(name, settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(wiki_records, "_measure", stops_in_the_third)
        wiki(["synthetic", *names], **SMALL, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    seen = measured(monkeypatch)
    found = wiki(["synthetic", *names], **SMALL, cache=tmp_path)
    assert seen == names[1:]
    assert found.models["came from"].tolist() == ["cache"] * 2 + ["measured"] * 3
    pd.testing.assert_frame_equal(found.heads, serial.heads, rtol=0, atol=1e-6)
    again = wiki(["synthetic", *names], **SMALL, cache=tmp_path)
    assert seen == names[1:] and (again.models["came from"] == "cache").all()
    pd.testing.assert_frame_equal(again.heads, found.heads, check_exact=True)
    pd.testing.assert_frame_equal(
        again.models.drop(columns="came from"), found.models.drop(columns="came from")
    )


def test_cache_knows_what_a_record_depends_on(folder, names, tmp_path, monkeypatch):
    seen = measured(monkeypatch, pretended)
    one = [names[0]]
    wiki(one, **SMALL, cache=tmp_path)
    for change in ({"seed": 1}, {"n": 13}, {"batch": 3}, {"prompts": 5}):
        wiki(one, **{**SMALL, **change}, cache=tmp_path)
    assert len(seen) == 5 and len(list(tmp_path.iterdir())) == 5
    wiki(one, **SMALL, cache=tmp_path)
    assert len(seen) == 5
    weights = folder / "wide" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    os.utime(weights, ns=(before + 10**9, before + 10**9))
    wiki(one, **SMALL, cache=tmp_path)
    os.utime(weights, ns=(before, before))
    assert len(seen) == 6, "the folder has other files now"
    wiki(one, **SMALL)
    assert len(seen) == 7, "without a cache nothing is looked up"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"key": 1}', '{"record": {}}', "\xff"]
)
def test_broken_files_are_measured_again(content, names, tmp_path, monkeypatch):
    seen = measured(monkeypatch, pretended)
    wiki(names[:1], **SMALL, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_text()
    path.write_text(content, encoding="latin-1")
    wiki(names[:1], **SMALL, cache=tmp_path)
    assert len(seen) == 2 and path.read_text() == good


def test_a_record_of_another_key_is_not_taken(names, tmp_path, monkeypatch):
    seen = measured(monkeypatch, pretended)
    wiki(names[:1], **SMALL, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    content["key"]["settings"]["version"] += 1
    path.write_text(json.dumps(content))
    wiki(names[:1], **SMALL, cache=tmp_path)
    assert len(seen) == 2


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "record.json"
    wiki_records._write(path, {"a": 1})
    with pytest.raises(TypeError):
        wiki_records._write(path, {"a": [1, object()]})
    assert json.loads(path.read_text()) == {"a": 1} and list(path.parent.iterdir()) == [
        path
    ]


def test_processes(names, serial, tmp_path):
    found = wiki(
        ["synthetic", "no such model", *names],
        "processes",
        **SMALL,
        jobs=2,
        cache=tmp_path,
    )
    assert (
        found.models["came from"].tolist() == ["measured", "failed"] + ["measured"] * 4
    )
    pd.testing.assert_frame_equal(found.heads, serial.heads, rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(
        found.models.drop("no such model"), serial.models, rtol=0, atol=1e-6
    )
    assert len(list(tmp_path.iterdir())) == 5


STAND_IN = """import json, os, signal, sys
from pathlib import Path
for line in sys.stdin:
    name, settings, out = json.loads(line)
    if name == "killed": os.kill(os.getpid(), signal.SIGKILL)
    if name == "quits": sys.exit("the reason")
    Path(out + ".part").write_text(json.dumps({"pid": os.getpid()}))
    os.replace(out + ".part", out)
"""


def stand_in(monkeypatch):
    """Processes that only pretend to measure, which is faster;
    two names let them die."""
    real, started = subprocess.Popen, []

    def start(command, **options):
        started.append(real([sys.executable, "-c", STAND_IN], **options))
        return started[-1]

    monkeypatch.setattr(wiki_workers.subprocess, "Popen", start)
    return started


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_a_process_that_dies_loses_its_own_model_only(jobs, monkeypatch):
    started = stand_in(monkeypatch)
    order = ["a", "killed", "b", "quits", "c"]
    found = dict(wiki_workers._processes(order, {}, jobs))
    assert sorted(found) == sorted(order)
    assert "signal 9" in found["killed"]["error"] and found["quits"]["error"].endswith(
        "status 1: the reason"
    )
    assert all("pid" in found[name] for name in "abc")
    assert all(process.poll() is not None for process in started)
    if jobs == 1:
        assert len(started) == 3 and len({found[name]["pid"] for name in "abc"}) == 3


def test_processes_are_stopped_with_the_run(monkeypatch):
    started = stand_in(monkeypatch)
    results = wiki_workers._processes(["a", "b", "c"], {}, 2)
    next(results)
    results.close()
    assert len(started) == 2 and all(process.poll() is not None for process in started)


# --- the command ----------------------------------------------------------------------


def invoke(*arguments):
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    return runner.invoke(
        cli.app,
        ["wiki", *map(str, arguments), "--n", "12", "--batch", "2", "--prompts", "4"],
    )


def test_command(names, serial, tmp_path):
    arguments = (
        *names[:2],
        "--cache",
        tmp_path / "kept",
        "--out",
        tmp_path / "heads.csv",
    )
    result = invoke(
        *arguments, "--picture", tmp_path / "heads.svg", "--kind", "previous"
    )
    assert result.exit_code == 0, result.output
    expected = serial.heads[
        serial.heads["model"].isin(["wide (local folder)", "deep (local folder)"])
    ]
    pd.testing.assert_frame_equal(
        load_wiki(tmp_path / "heads.csv"), expected, rtol=0, atol=1e-6
    )
    assert "Previous scores" in (tmp_path / "heads.svg").read_text()
    assert "wide" in result.output and "measured" in result.output
    assert "cache" in invoke(*arguments).output


def test_command_with_a_bad_model(names, tmp_path):
    result = invoke(
        names[0],
        "no such model",
        "--cache",
        tmp_path / "kept",
        "--out",
        tmp_path / "heads.csv",
    )
    assert result.exit_code == 1 and "There is no model" in result.output
    assert len(load_wiki(tmp_path / "heads.csv")) == 24


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--where", "cloud"), "where is 'cloud'"),
        (("--kind", "copy"), "no score 'copy'"),
        (("--picture", "heads.png"), "saved as .svg"),
        (("--out", "no/such/folder.csv"), "There is no folder"),
        (("--jobs", "2"), "jobs is 2"),
    ],
)
def test_command_refuses(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = measured(monkeypatch, pretended)
    result = invoke("synthetic", *arguments)
    assert result.exit_code == 2 and says in result.output and not seen


# --- Dask -----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A scheduler and workers as processes of their own, as on real machines."""

    def __init__(self, workers: int):
        self.address, self.running = f"tcp://127.0.0.1:{free_port()}", []
        port = self.address.rsplit(":", 1)[1]
        self.start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        for _ in range(workers):
            self.start(
                "worker",
                self.address,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
            )

    def start(self, *command: str) -> None:
        arguments = [
            sys.executable,
            "-m",
            "distributed.cli.dask_" + command[0],
            *command[1:],
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.running.append(
            subprocess.Popen(
                arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet
            )
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()


def client_of(cluster: Cluster, workers: int):
    client = distributed.Client(cluster.address, timeout=30, set_as_default=False)
    if workers:
        client.wait_for_workers(workers, timeout=60)
    return client


def test_dask_with_a_worker_killed_on_the_way(names, serial, tmp_path):
    """SIGKILL for a worker while it has a model under way: the other one measures all,
    and nothing is missing."""
    with Cluster(workers=2) as cluster, client_of(cluster, 2) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        found = {}
        arguments = (["synthetic", *names], cluster.address, tmp_path)
        thread = threading.Thread(
            target=lambda: found.update(wiki=wiki(*arguments, **SMALL))
        )
        thread.start()
        victim, until = None, time.monotonic() + 60
        while victim is None and time.monotonic() < until:
            victim = next(
                (address for address, tasks in client.processing().items() if tasks),
                None,
            )
            time.sleep(0.01)
        under_way = client.processing()[victim]
        assert under_way, "the worker was to be killed while it has a model under way"
        os.kill(pids[victim], signal.SIGKILL)
        thread.join(timeout=120)
        assert not thread.is_alive() and list(client.nthreads()) == [
            next(a for a in pids if a != victim)
        ]
    assert (found["wiki"].models["came from"] == "measured").all()
    pd.testing.assert_frame_equal(found["wiki"].heads, serial.heads, rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(
        found["wiki"].models, serial.models, rtol=0, atol=1e-6
    )
    assert len(list(tmp_path.iterdir())) == 5


def test_dask_model_that_kills_every_worker(names, monkeypatch):
    """Four workers die of it, which is where Dask gives a task up; the next model is
    measured by the fifth."""

    def remote(name, settings):
        if name.endswith("wide"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {
            "model": name,
            "facts": {},
            "rows": {"index": [], "columns": ["model"], "data": []},
        }

    monkeypatch.setattr(wiki_workers, "_remote", by_value(remote))
    with Cluster(workers=5) as cluster, client_of(cluster, 5):
        found = dict(wiki_workers._dask(names[:1], {}, cluster.address))
        assert "every worker that tried it died" in found[names[0]]["error"]
        assert (
            dict(wiki_workers._dask(names[1:2], {}, cluster.address))[names[1]]["model"]
            == names[1]
        )


def by_value(function):
    """The function so that it is sent whole: a worker cannot import this file."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return function


def test_dask_errors_of_a_model(names, tmp_path):
    with Cluster(workers=1) as cluster:
        empty = tmp_path / "empty"
        empty.mkdir()
        # waits for the worker to come
        found = wiki([str(empty), names[0]], cluster.address, **SMALL)
    assert (
        found.models["came from"].tolist() == ["failed", "measured"]
        and len(found.heads) == 24
    )


def test_dask_cluster_that_is_not_there(names, monkeypatch):
    monkeypatch.setattr(wiki_workers, "_ANSWER", 1)
    with pytest.raises(
        ConnectionError, match="No Dask scheduler answers at tcp://127.0.0.1"
    ):
        wiki(names[:1], f"tcp://127.0.0.1:{free_port()}", **SMALL)
    with pytest.raises(ConnectionError, match="No Dask scheduler answers"):
        wiki(names[:1], "nonsense://x", **SMALL)


def test_dask_without_workers_or_scheduler(names, monkeypatch):
    monkeypatch.setattr(wiki_workers, "_PATIENCE", 1)
    with Cluster(workers=0) as cluster:
        client_of(cluster, 0).close()
        with pytest.raises(ConnectionError, match="has no workers"):
            wiki(names[:1], cluster.address, **SMALL)
        monkeypatch.setattr(wiki_workers, "_PATIENCE", 60)
        threading.Timer(3, cluster.running[0].kill).start()
        with pytest.raises(ConnectionError, match="was lost"):
            wiki(names[:1], cluster.address, **SMALL)


def test_dask_not_installed(names, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        ModuleNotFoundError, match=re.escape("pip install 'ioi_course[dask]'")
    ):
        wiki(names[:1], "tcp://127.0.0.1:1", **SMALL)


def test_threads_of_a_worker_take_turns(monkeypatch):
    """A worker with several threads still has one model in memory at a time."""
    inside, most = [], []

    def slow(name, settings):
        inside.append(name)
        most.append(len(inside))
        time.sleep(0.05)
        inside.remove(name)
        return {}

    monkeypatch.setattr(wiki_records, "_measure", slow)
    settings = {"n": 2, "batch": 1, "seed": 0, "prompts": 1, "version": 1}
    threads = [
        threading.Thread(target=wiki_records.attempt, args=(str(i), settings))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_wiki_is_a_plain_pair(serial):
    assert isinstance(serial, Wiki) and serial.models.columns.tolist() == [
        "layers", "heads", "accuracy", "logit_diff", "came from", "note",
    ]  # fmt: skip
