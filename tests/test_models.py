"""Loading models: names, folders, the hub and its failures, precision, and what is left
as it was afterwards."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub import running
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from ioi_course import checkpoints
from ioi_course.models import (
    MODELS,
    PROCESSING,
    ModelError,
    describe,
    hub_answers,
    in_cache,
    in_colab,
    is_gpt2_small,
    is_synthetic,
    list_models,
    load_model,
    model_name,
    pick_device,
    resolve_model,
)

TOKENS = torch.tensor([[256, 72, 105, 33, 72, 105, 33, 10]])


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A folder with a random GPT-2 of two layers with bytes as tokens, whose LayerNorms
    and biases are not trivial."""
    folder = tmp_path_factory.mktemp("models") / "small"
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        BPE({character: i for i, character in enumerate(characters)}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys(["bos_token", "eos_token", "pad_token"], "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(
        folder
    )
    generator = torch.Generator().manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=257, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    )
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = (
            1 + 0.3 * noise
            if "ln_" in name and name.endswith("weight")
            else 0.3 * noise
        )
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(small, tmp_path) -> Path:
    """A copy of the small model, to be damaged."""
    return Path(shutil.copytree(small, tmp_path / "copy"))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, no token, no proxy, no IOI_COURSE_MODEL, and a
    hub that times out soon."""
    monkeypatch.setenv("IOI_COURSE_CACHE", str(tmp_path / "course"))
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    for variable in (
        "IOI_COURSE_MODEL",
        "HF_TOKEN",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(variable, raising=False)
    return cache


@pytest.fixture
def hub(small, empty_cache, monkeypatch):
    """A hub on this machine that serves the small model as `gpt2`; set
    its mode to see it fail."""
    with running(small, "gpt2/gpt2", "serve") as hub:
        point_at(hub.url, monkeypatch)
        yield hub


def point_at(url: str, monkeypatch) -> None:
    """Make the hub's client, which has read HF_ENDPOINT when it was imported,
    go to another address."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.fixture
def no_hub(empty_cache, monkeypatch) -> None:
    """A hub whose connections are refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{free.getsockname()[1]}", monkeypatch)
        yield


def failure(*arguments, **options) -> str:
    """The message with which load_model fails."""
    with pytest.raises(ModelError) as caught:
        load_model(*arguments, **options)
    return str(caught.value)


# --- folders --------------------------------------------------------------------------


def test_folder_gives_what_transformers_gives(small):
    bridge = load_model(small, device="cpu")
    reference = AutoModelForCausalLM.from_pretrained(small).eval()
    with torch.no_grad():
        expected = reference(TOKENS).logits.log_softmax(-1)
    assert_close(bridge(TOKENS).log_softmax(-1), expected, atol=1e-4, rtol=0)
    assert bridge.to_tokens("Hi!").tolist() == [
        [256, *bridge.tokenizer.encode("Hi!", add_special_tokens=False)]
    ]
    assert not bridge.training and not any(
        parameter.requires_grad for parameter in bridge.parameters()
    )
    assert not bridge(TOKENS).requires_grad and torch.is_grad_enabled()


def test_relative_path(small, monkeypatch):
    monkeypatch.chdir(small.parent)
    for spelling in ["small", "./small", "small/", f"../{small.parent.name}/small"]:
        assert resolve_model(spelling) == str(small)
    assert model_name(load_model("small", device="cpu")) == "small (local folder)"


def test_environment_names_a_folder(small, monkeypatch):
    monkeypatch.setenv("IOI_COURSE_MODEL", str(small))
    assert model_name(load_model(device="cpu")) == "small (local folder)"


def test_sharded_folder(small, tmp_path):
    folder = Path(shutil.copytree(small, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(small).save_pretrained(
        folder, max_shard_size="50KB"
    )
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert_close(
        load_model(folder, device="cpu")(TOKENS),
        load_model(small, device="cpu")(TOKENS),
    )
    shards[1].unlink()
    assert f"lacks {shards[1].name}" in failure(folder)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change) -> None:
    """Save the weights of a folder again after `change` was applied to them."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_a_pickle(folder: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


WEIGHT = "transformer.h.1.mlp.c_fc.bias"
DAMAGES = {
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "config.json is not readable as JSON": lambda folder: (
        folder / "config.json"
    ).write_text("{"),
    "config.json holds no JSON object": lambda folder: (
        folder / "config.json"
    ).write_text("[]"),
    "names no model_type": lambda folder: (folder / "config.json").write_text("{}"),
    "`no_such_model`": lambda folder: edit(
        folder / "config.json", model_type="no_such_model"
    ),
    "has no tokenizer: one of tokenizer.json": no_tokenizer,
    "lacks model.safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "only as pytorch_model.bin. Such a file is a pickle": only_a_pickle,
    "is broken or was cut short": cut,
    "(9 bytes) is broken or was cut short": lambda folder: (
        folder / "model.safetensors"
    ).write_bytes(b"not it at"),
    "header": lambda folder: (folder / "model.safetensors").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\n"
    ),
    f"1 of the weights are missing, among them {WEIGHT}": lambda folder: rewrite(
        folder, lambda weights: weights.pop(WEIGHT)
    ),
    "have another shape than config.json says": lambda folder: edit(
        folder / "config.json", vocab_size=300
    ),
    "The tokenizer in ": lambda folder: (folder / "tokenizer.json").write_text(
        "no tokenizer"
    ),
}


@pytest.mark.parametrize("expected", DAMAGES)
def test_damaged_folder(copy, expected):
    DAMAGES[expected](copy)
    message = failure(copy)
    assert expected in message and str(copy) in message and message.endswith(".")


def test_code_in_a_folder_is_not_run(copy):
    mark = copy / "ran"
    (copy / "custom.py").write_text(
        f"open({str(mark)!r}, 'w')\nclass Config: ...\nclass Model: ...\n"
    )
    names = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
    edit(copy / "config.json", model_type="custom", auto_map=names)
    assert "cannot be loaded" in failure(copy)
    assert not mark.exists()


def test_architecture_that_is_no_language_model(copy):
    edit(copy / "config.json", model_type="vit", architectures=["ViTModel"])
    assert "cannot be loaded" in failure(copy)


# --- names, devices, options ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("synthetic", "synthetic"),
        ("gpt2-small", "gpt2-small"),
        ("GPT2-Small", "gpt2-small"),
        ("gpt2", "gpt2-small"),
        ("openai-community/gpt2", "gpt2-small"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
        ("distilgpt2", "distilgpt2"),
        ("somebody/some-model", "somebody/some-model"),
    ],
)
def test_names(name, resolved):
    assert resolve_model(name) == resolved


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2-smal", "Did you mean 'gpt2-small'?"),
        ("sinthetic", "Did you mean 'synthetic'?"),
        ("pythia-70", "Did you mean 'pythia-70m'?"),
        ("zzzz", "There is no model 'zzzz'. Expected one of 'gpt2-small', 'synthetic'"),
        ("teeny", "There is no model 'teeny'."),
        ("", "There is no model ''."),
        ("./nowhere", "There is no folder './nowhere'"),
        ("/no/where", "There is no folder '/no/where'"),
        (__file__, "is a file. Name the folder"),
    ],
)
def test_unknown_names(name, expected, monkeypatch):
    assert expected in failure(name)
    if name:
        monkeypatch.setenv("IOI_COURSE_MODEL", name)
        assert failure() == f"IOI_COURSE_MODEL is set to {name!r}. {failure(name)}"


def test_devices(monkeypatch):
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    for wrong in ["gpu", "cpu!", "meta", "cuda:x", "", None]:
        with pytest.raises(ModelError, match="is not a device. Expected 'auto', 'cpu'"):
            pick_device(wrong)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda") == pick_device() == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        ModelError, match="'cuda:2' was asked for, but PyTorch finds 2 of that kind"
    ):
        pick_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        ModelError,
        match="'cuda' was asked for, but PyTorch finds 0 .* use device='cpu'",
    ):
        pick_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == pick_device("mps") == torch.device("mps")


def test_options_are_checked(small):
    assert "floating-point dtype" in failure(small, dtype="float16")
    assert "floating-point dtype" in failure(small, dtype=torch.int8)
    assert "device_map alone says" in failure(small, device="cpu", device_map="auto")
    assert "some of the steps fold_ln" in failure(small, processing=["fold"])
    assert "some of the steps fold_ln" in failure(small, processing="fold_ln")


def test_device_map_goes_through(small):
    parts = [
        "transformer.wte",
        "transformer.wpe",
        "transformer.h.0",
        "transformer.h.1",
        "transformer.ln_f",
        "lm_head",
    ]
    places = dict.fromkeys(parts, "cpu") | {"transformer.h.1": "disk"}
    bridge = load_model(small, device_map=places, processing=())
    assert bridge.original_model.hf_device_map == places
    assert_close(bridge(TOKENS), load_model(small, device="cpu", processing=())(TOKENS))
    assert "offloaded device_map" in failure(small, device_map=places)
    assert "found nonsense" in failure(small, device_map="nonsense")


def test_too_little_memory(small, monkeypatch):
    class Memory:
        available = 100_000

    monkeypatch.setattr(checkpoints.psutil, "virtual_memory", Memory)
    n_params = sum(
        parameter.numel()
        for parameter in AutoModelForCausalLM.from_pretrained(small).parameters()
    )
    message = failure(small, device="cpu")
    assert (
        f"Too little memory on cpu: {n_params:,} parameters of 4 bytes each take "
        "about 0.0 GB"
    ) in message
    assert "torch.bfloat16" in message


def test_colab(monkeypatch):
    assert not in_colab()
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert in_colab()


# --- the hub --------------------------------------------------------------------------


def test_hub_then_cache(hub, empty_cache, no_network_after):
    assert not in_cache("gpt2-small") and set(list_models()["at hand"]) == {
        "to download",
        "bundled",
    }
    assert hub.requests == []
    first = load_model("gpt2-small", device="cpu")
    assert is_gpt2_small(first) and not is_synthetic(first)
    assert not [
        path for _, path in hub.requests if path.endswith((".bin", ".py", ".h5"))
    ]
    assert (
        in_cache("gpt2-small")
        and in_cache("gpt2")
        and "in the cache" in set(list_models()["at hand"])
    )
    no_network_after()
    again = load_model("gpt2", device="cpu")
    assert is_gpt2_small(again)
    assert_close(first(TOKENS), again(TOKENS), atol=0, rtol=0)


@pytest.fixture
def no_network_after(hub, monkeypatch):
    """A function after which every request to the hub fails the test."""

    def close() -> None:
        hub.requests.clear()
        monkeypatch.setattr(hub, "mode", "none")
        monkeypatch.setattr(socket, "create_connection", None)

    yield close
    assert hub.mode == "none" and hub.requests == []


def test_truncated_file_in_the_cache(hub, empty_cache):
    load_model("gpt2-small", device="cpu")
    blob = (
        empty_cache / f"models--gpt2/snapshots/{models_commit()}/model.safetensors"
    ).resolve()
    blob.write_bytes(blob.read_bytes()[:5000])
    message = failure("gpt2-small")
    assert "model.safetensors (5,000 bytes) is broken or was cut short" in message
    repo = empty_cache / "models--gpt2"
    assert f"delete {repo} and load the model again" in message
    shutil.rmtree(repo)
    assert is_gpt2_small(load_model("gpt2-small", device="cpu"))


def models_commit() -> str:
    from hub import COMMIT

    return COMMIT


def test_cache_without_weights_is_not_a_model(hub, empty_cache):
    huggingface_hub.hf_hub_download("gpt2", "config.json")
    assert not in_cache("gpt2-small")
    assert is_gpt2_small(load_model("gpt2-small", device="cpu"))


def test_hub_refuses(no_hub):
    start = time.perf_counter()
    assert (
        "cannot be reached" in (message := failure("gpt2-small"))
        and "load_model('synthetic')" in message
    )
    assert time.perf_counter() - start < 8


def test_hub_is_silent(hub):
    hub.mode = "silent"
    start = time.perf_counter()
    assert "did not answer in time" in failure("gpt2-small")
    assert time.perf_counter() - start < 8


def test_hub_is_busy(hub):
    hub.mode = "busy"
    message = failure("gpt2-small")
    assert (
        "answered 429, too many requests" in message
        and "log in" in message
        and "load_model('synthetic')" in message
    )
    assert len(hub.requests) == 1


def test_hub_breaks_off(hub, empty_cache, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub.file_download.time, "sleep", lambda seconds: None
    )
    hub.mode = "cut"
    assert "broke off in the middle of a file. Load it again" in failure("gpt2-small")
    assert not in_cache("gpt2-small")
    hub.mode = "serve"
    assert is_gpt2_small(load_model("gpt2-small", device="cpu"))


def test_hub_does_not_know_it(hub):
    assert "has no repository 'somebody/nothing'" in failure("somebody/nothing")


def test_hub_has_no_safetensors(hub, copy):
    only_a_pickle(copy)
    hub.folder = copy
    assert "no weights as safetensors" in failure("gpt2-small")
    assert not [path for _, path in hub.requests if path.endswith(".bin")]


def test_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids" in failure("gpt2-small")
    assert not hub_answers() and hub.requests == []


def test_full_disk(hub, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    assert "does not fit on the disk" in failure("gpt2-small")


def test_environment_variables_of_the_hub(hub, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE work from outside, progress is shown, and
    the cache then serves alone."""
    code = (
        "from ioi_course.models import *; print(model_name(load_model(device='cpu')))"
    )
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.lower().endswith(("_proxy", "_offline"))
    }
    env |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "IOI_COURSE_MODEL": "",
    }
    # the hub's way to ask for bars where there is no terminal
    env["TQDM_POSITION"] = "-1"
    run = {"capture_output": True, "text": True, "timeout": 60, "check": True}
    online = subprocess.run([sys.executable, "-c", code], env=env, **run)
    assert (
        online.stdout == "gpt2-small\n" and "model.safetensors: 100%" in online.stderr
    )
    hub.requests.clear()
    offline = subprocess.run(
        [sys.executable, "-c", code], env=env | {"HF_HUB_OFFLINE": "1"}, **run
    )
    assert (offline.stdout, offline.stderr) == (
        "gpt2-small\n",
        "",
    ) and hub.requests == []


# --- auto -----------------------------------------------------------------------------


def test_auto_heeds_the_environment(hub, monkeypatch, capsys):
    monkeypatch.setenv("IOI_COURSE_MODEL", "synthetic")
    assert resolve_model() == "synthetic"
    monkeypatch.setenv("IOI_COURSE_MODEL", "auto")
    assert resolve_model() == "gpt2-small"
    assert hub.requests == [
        ("HEAD", f"/{repo}/resolve/main/config.json") for repo in ("gpt2", "gpt2/gpt2")
    ]
    assert capsys.readouterr().out == ""


def test_auto_takes_the_cache_without_asking(hub, no_network_after):
    load_model("gpt2-small", device="cpu")
    no_network_after()
    assert resolve_model("auto") == "gpt2-small"


def test_auto_without_a_hub(no_hub, capsys):
    assert resolve_model() == "synthetic"
    out = capsys.readouterr().out
    assert (
        out.count("\n") == 1
        and "`synthetic`" in out
        and "IOI_COURSE_MODEL" in out
        and "load_model(name)" in out
    )


@pytest.mark.parametrize("mode", ["silent", "busy"])
def test_auto_with_a_hub_that_does_not_help(hub, mode, capsys):
    hub.mode = mode
    start = time.perf_counter()
    assert resolve_model() == "synthetic"
    assert time.perf_counter() - start < 8
    assert "the model hub does not answer" in capsys.readouterr().out


def test_probe_ends_when_the_name_lookup_hangs(no_hub, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30) and [])
    start = time.perf_counter()
    assert not hub_answers()
    assert 2.9 < time.perf_counter() - start < 8
    release.set()


def test_a_log_in_page_is_not_the_hub(hub, monkeypatch):
    assert hub_answers()
    monkeypatch.setattr(
        hub.RequestHandlerClass,
        "answer",
        lambda self: self.reply(200, {}, b"<html>Welcome</html>"),
    )
    assert not hub_answers()
    assert "cannot" in failure("gpt2-small")


# --- weight processing and precision --------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "steps", [(), *((step,) for step in PROCESSING), PROCESSING], ids="+".join
)
def test_processing_leaves_the_output_unchanged(small, steps, dtype):
    bridge = load_model(small, device="cpu", dtype=dtype, processing=steps)
    assert describe(bridge).rows["weight processing"] == (", ".join(steps) or "none")
    with torch.no_grad():
        expected = (
            AutoModelForCausalLM.from_pretrained(small, dtype=dtype)
            .eval()(TOKENS)
            .logits.log_softmax(-1)
        )
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert_close(bridge(TOKENS).log_softmax(-1), expected, atol=tolerance, rtol=0)


def test_float64_processing_agrees_with_transformer_lens(small):
    ours, theirs = (
        load_model(small, device="cpu", dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    for name in (
        "W_E",
        "W_pos",
        "W_U",
        "b_U",
        "W_in",
        "b_in",
        "W_out",
        "b_out",
        "b_V",
        "b_O",
    ):
        assert_close(
            getattr(ours, name).float(),
            getattr(theirs, name),
            atol=1e-4,
            rtol=1e-4,
            msg=name,
        )
    for name in ("QK", "OV"):
        assert_close(
            getattr(ours, name).AB.float(),
            getattr(theirs, name).AB,
            atol=1e-3,
            rtol=1e-3,
            msg=name,
        )


def test_transformer_lens_processes_in_float32(small):
    """Why `_process_in_float64` exists; if this fails, it can go."""
    from transformer_lens.model_bridge import TransformerBridge

    hf_model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float64).eval()
    with torch.no_grad():
        expected = hf_model(TOKENS).logits.log_softmax(-1)
    tokenizer = load_model(small, device="cpu").tokenizer
    bridge = TransformerBridge.boot_transformers(
        "x", hf_model=hf_model, tokenizer=tokenizer, dtype=torch.float64
    )
    bridge.enable_compatibility_mode(
        disable_warnings=True, refactor_factored_attn_matrices=True
    )
    with torch.no_grad():
        error = (bridge(TOKENS).log_softmax(-1) - expected).abs().max()
    assert 1e-8 < error < 1e-3


@pytest.mark.parametrize("name", ["small", "synthetic"])
def test_float64_is_the_same_with_any_number_of_threads(small, name):
    before, logits = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            bridge = load_model(
                small if name == "small" else name, device="cpu", dtype=torch.float64
            )
            logits.append(bridge(bridge.to_tokens("When John and Mary went to")))
    finally:
        torch.set_num_threads(before)
    assert logits[0].dtype == torch.float64
    assert_close(logits[0], logits[1], atol=1e-9, rtol=0)


def test_what_processing_buys(small):
    _, cache = load_model(small, device="cpu").run_with_cache(TOKENS)
    _, raw = load_model(small, device="cpu", processing=()).run_with_cache(TOKENS)
    key = "blocks.1.hook_resid_post"
    assert cache[key].mean(-1).abs().max() < 1e-5 < 0.01 < raw[key].mean(-1).abs().max()


# --- synthetic ------------------------------------------------------------------------


def test_synthetic_loads_in_silence(capfd, no_hub):
    model = load_model("synthetic", device="cpu")
    assert (
        is_synthetic(model)
        and not is_gpt2_small(model)
        and model.cfg.dtype == torch.float64
    )
    assert model(model.to_tokens("Hi")).dtype == torch.float64
    assert (
        load_model("synthetic", device="cpu", dtype=torch.float32).W_E.dtype
        == torch.float32
    )
    assert capfd.readouterr() == ("", "")


def test_synthetic_size(model):
    assert in_cache("synthetic") and MODELS["synthetic"].source == "bundled"
    assert "not GPT-2" in describe(model).rows["what it is"]


# --- tiny -----------------------------------------------------------------------------


def test_tiny_loads_in_silence(capfd, no_hub, tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name is not meant
    model = load_model("tiny", device="cpu")
    assert (
        model_name(model) == "tiny"
        and not is_synthetic(model)
        and not is_gpt2_small(model)
    )
    assert (
        model.cfg.dtype == torch.float64
        and in_cache("tiny")
        and MODELS["tiny"].source == "bundled"
    )
    assert (
        load_model("Tiny", device="cpu", dtype=torch.float32).W_E.dtype == torch.float32
    )
    rows = describe(model).rows
    assert (
        rows["layers, heads per layer"] == "6, 8"
        and "not GPT-2 small" in rows["what it is"]
    )
    assert capfd.readouterr() == ("", "")


# --- what is left afterwards ----------------------------------------------------------


def state() -> tuple:
    return (
        logging.getLogger().level,
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
        huggingface_hub.utils.are_progress_bars_disabled(),
        list(warnings.filters),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize("bars", [True, False])
def test_flags_are_as_before(small, copy, bars, capfd):
    was = state()
    (
        transformers_logging.enable_progress_bar
        if bars
        else transformers_logging.disable_progress_bar
    )()
    try:
        before = state()
        load_model(small, device="cpu")
        assert state() == before
        edit(copy / "config.json", vocab_size=300)
        failure(copy)
        assert state() == before
        edit(copy / "config.json", model_type="no_such_model")
        failure(copy)
        assert state() == before
        assert capfd.readouterr() == ("", "")
    finally:
        transformers_logging.enable_progress_bar()
    assert state() == was


def n_hooks(model) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def test_hooks_are_gone_after_an_exception(small):
    model = load_model(small, device="cpu")
    before, clean = n_hooks(model), model(TOKENS)

    def fail(z, hook):
        raise RuntimeError("in the hook")

    with pytest.raises(RuntimeError, match="in the hook"):
        model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_z", fail)])
    with (
        pytest.raises(RuntimeError, match="in the hook"),
        model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", fail)]),
    ):
        assert n_hooks(model) > before
        model(TOKENS)
    assert n_hooks(model) == before
    assert_close(model(TOKENS), clean, atol=0, rtol=0)


# --- descriptions ---------------------------------------------------------------------


def test_describe(small):
    card = describe(load_model(small, device="cpu"))
    assert repr(card).splitlines()[0].split(maxsplit=1) == [
        "model",
        "small (local folder)",
    ]
    assert list(card.rows) == [
        "model",
        "what it is",
        "layers, heads per layer",
        "d_model, d_head, d_mlp",
        "vocabulary, context",
        "parameters",
        "weight processing",
    ]
    assert card.rows["layers, heads per layer"] == "2, 4"
    assert card.rows["vocabulary, context"] == "257 tokens, 32 positions"
    for text in (repr(card), card._repr_html_(), card._repr_markdown_()):
        assert str(small.parent) not in text and all(
            value in text for value in card.rows.values()
        )


def test_a_folder_is_never_taken_for_a_known_model(small, tmp_path):
    for name in MODELS:
        model = load_model(shutil.copytree(small, tmp_path / name), device="cpu")
        assert not is_gpt2_small(model) and not is_synthetic(model)
        assert model_name(model) == f"{name} (local folder)"


def test_a_bridge_from_elsewhere(small):
    from transformer_lens.model_bridge import TransformerBridge

    hf_model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(small),
        load_model(small, device="cpu").tokenizer,
    )
    bridge = TransformerBridge.boot_transformers(
        str(small), hf_model=hf_model, tokenizer=tokenizer
    )
    assert model_name(bridge) == "small (not from load_model)" and not is_gpt2_small(
        bridge
    )
    assert describe(bridge).rows["weight processing"] == "unknown"


def test_list_models():
    frame = list_models()
    assert (
        list(frame["model"])
        == list(MODELS)
        == ["gpt2-small", "synthetic", "tiny", "smollm2"]
    )
    assert list(frame.columns) == ["model", "what it is", "MB", "source", "at hand"]
    assert frame["at hand"][1] == frame["at hand"][2] == "bundled"


# --- GPT-2 small itself ---------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2():
    if not in_cache("gpt2-small"):
        pytest.skip("GPT-2 small is not in the hub's cache of this machine")
    return load_model("gpt2-small")


@pytest.mark.gpt2
def test_gpt2_small(gpt2):
    assert is_gpt2_small(gpt2)
    rows = describe(gpt2).rows
    assert (
        rows["layers, heads per layer"] == "12, 12"
        and rows["d_model, d_head, d_mlp"] == "768, 64, 3072"
    )
    assert (
        rows["parameters"] == "124,439,808"
        and rows["vocabulary, context"] == "50,257 tokens, 1,024 positions"
    )
    assert [
        gpt2.to_single_token(text) for text in (" Mary", " John", "<|endoftext|>")
    ] == [5335, 1757, 50256]


@pytest.mark.gpt2
def test_gpt2_small_on_the_demo_prompts(gpt2):
    """Mean 3.552 in TransformerLens' exploratory analysis demo, with BOS."""
    from ioi_course.metrics import logit_diff
    from ioi_course.prompts import IOIDataset

    data = IOIDataset.demo(gpt2)
    assert logit_diff(gpt2(data.tokens), data).item() == pytest.approx(3.552, abs=2e-3)
