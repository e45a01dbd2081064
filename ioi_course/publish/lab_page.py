"""The lab as a page: a model, its runtime and one front end, which run in a
browser without a server."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import platformdirs
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ioi_course.bundled.answer_key import known_circuit
from ioi_course.interventions import Bench, Intervention, intervene, name_tokens
from ioi_course.lab import FRONT_END, classes_of, examples_of, front_end
from ioi_course.models import describe, is_synthetic, load_model, model_name
from ioi_course.project import CourseError
from ioi_course.publish.circuit_page import page_prompts
from ioi_course.publish.framed import tool_css
from ioi_course.publish.lab_model import graph_of, packed, unpacked, weights_of

NAME = "lab.html"
RUNTIME = "1.22.0"  # of onnxruntime-web
PARTS = (  # of its package
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
LARGEST = 18_000_000  # bytes of a model
FIRST = "lab/first.js"  # what the site's first page runs
SENTENCE = "When John and Mary went to the shops, John gave the bag to"  # of that page


def runtime(
    cache: Path | None = None,  # None: the course's own
    fetch: bool = True,  # ask npm for what the cache lacks
) -> tuple[bytes, ...]:
    """onnxruntime-web's two scripts and its WebAssembly, from the cache or fetched from
    npm; CourseError if it is not had."""
    cache = (
        cache
        or os.environ.get("IOI_COURSE_CACHE")
        or platformdirs.user_cache_dir("ioi_course", appauthor=False)
    )
    folder = Path(cache) / f"onnxruntime-web-{RUNTIME}"
    if not all((folder / name).is_file() for name in PARTS):
        if not fetch:
            raise CourseError(
                "`ioi-course docs` builds it, and so does `ioi-course lab-page "
                "--out lab.html`"
            )
        npm = shutil.which("npm")
        if npm is None:
            raise CourseError(
                "The lab's page needs onnxruntime-web, which npm fetches, and npm is "
                f"not installed. Install Node.js, or put {', '.join(PARTS)} of "
                f"onnxruntime-web {RUNTIME} into {folder}."
            )
        with tempfile.TemporaryDirectory() as temporary:
            command = [npm, "pack", "--silent", f"onnxruntime-web@{RUNTIME}"]
            try:
                result = subprocess.run(
                    command, cwd=temporary, capture_output=True, text=True, timeout=300
                )
            except subprocess.TimeoutExpired as error:
                raise CourseError(
                    "npm did not answer within 300 s. Try again where there is "
                    "a network."
                ) from error
            archives = list(Path(temporary).glob("*.tgz"))
            if result.returncode or not archives:
                raise CourseError(
                    f"npm could not fetch onnxruntime-web {RUNTIME}: "
                    f"{result.stderr.strip()[-300:]}"
                )
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(archives[0]) as archive:
                for name in PARTS:
                    made = folder / f"{name}.new"
                    made.write_bytes(archive.extractfile(f"package/dist/{name}").read())
                    made.replace(folder / name)
    return tuple((folder / name).read_bytes() for name in PARTS)


def config_of(model) -> dict:
    """What the page has to know of a model, as plain values."""
    cfg = model.cfg
    return {
        "model": model_name(model),
        "what": describe(model).rows["what it is"],
        "synthetic": is_synthetic(model),
        "n_layers": cfg.n_layers,
        "n_heads": cfg.n_heads,
        "d_head": cfg.d_head,
        "n_ctx": cfg.n_ctx,
        "names": list(name_tokens(model).items()),
        "examples": examples_of(page_prompts(model)),
        **classes_of(known_circuit(model)),
    }


def tokenizer_of(model) -> dict:
    """The vocabulary and merges of a byte-level BPE, for the page's own tokenizer."""
    parts = json.loads(model.tokenizer.backend_tokenizer.to_str())
    if parts["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(
        parts["pre_tokenizer"]
    ):
        raise CourseError(
            f"The lab's page knows byte-level BPE; {model_name(model)} has another "
            "tokenizer."
        )
    vocab = sorted(parts["model"]["vocab"], key=parts["model"]["vocab"].get)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair)
        for pair in parts["model"]["merges"]
    ]
    return {"vocab": vocab, "merges": merges, "end": model.tokenizer.bos_token}


def _script(values: dict) -> str:
    """Values as a script that leaves them where the page looks: scripts load from
    the file system, too."""
    text = json.dumps(values, separators=(",", ":"))
    return (
        f"globalThis.ioiLabParts = Object.assign(globalThis.ioiLabParts ?? {{}}, "
        f"{text});\n"
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def write_lab(
    path: Path
    | str,  # the page; a folder "lab" beside it holds the runtime and the model
    model,  # a TransformerBridge, or a name for `load_model`
    home: str | None = None,  # the address of the course's index, for a link to it
    # the address of the circuit's page, for those who cannot run the lab
    circuit: str = "circuit.html",
    cache: Path | None = None,  # as for `runtime`
) -> dict[str, int]:
    """Write the lab's page for a model; the bytes of each file. CourseError
    if it cannot be made."""
    model = load_model(model, "cpu") if isinstance(model, str) else model
    path = Path(path)
    script, glue, wasm = runtime(cache)
    weights, config = packed(weights_of(model)), config_of(model)
    if len(weights) > LARGEST:
        raise CourseError(
            f"The weights of {config['model']} have {len(weights) / 1e6:.0f} MB; a "
            "page takes 18 at most."
        )
    inside = unpacked(weights)
    graph = graph_of(model, inside).SerializeToString()
    config["width"] = inside["embed"].shape[1]
    name = re.sub(r"[^\w-]+", "-", config["model"])
    config["parts"] = ["lab/runtime.js", f"lab/{name}.js"]
    run = {
        "runtime": _text(script),
        "glue": _text(glue),
        "wasm": _text(gzip.compress(wasm, 9, mtime=0)),
    }
    model_parts = {
        "graph": _text(graph),
        "weights": _text(weights),
        "tokenizer": tokenizer_of(model),
    }
    (path.parent / "lab").mkdir(exist_ok=True)
    (path.parent / config["parts"][0]).write_text(_script(run), encoding="utf-8")
    (path.parent / config["parts"][1]).write_text(
        _script(model_parts), encoding="utf-8"
    )
    sizes = {part: (path.parent / part).stat().st_size for part in config["parts"]}
    template = Environment(
        undefined=StrictUndefined, trim_blocks=True, autoescape=False
    ).from_string((FRONT_END / "lab.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        config=config,
        json=json.dumps(config, ensure_ascii=False).replace("<", "\\u003c"),
        home=home,
        circuit=circuit,
        circuit_json=json.dumps(circuit),
        tool_css=tool_css(),
        css=(FRONT_END / "lab.css").read_text(encoding="utf-8"),
        script=front_end("dom", "tokenizer", "web", "load", "lab", "tours", "page"),
        megabytes=round(sum(sizes.values()) / 1e6),
    )
    path.write_text(page, encoding="utf-8")
    if config["synthetic"]:  # of which its words speak
        config |= {
            "first": first_of(model),
            "circuit": circuit,
            "megabytes": round(sum(sizes.values()) / 1e6),
        }
        write_first(path.parent, config)
        sizes[FIRST] = (path.parent / FIRST).stat().st_size
    return {path.name: path.stat().st_size, **sizes}


def first_of(model) -> dict:
    """The first page's sentence with its counterfactual, and what the model says to it:
    words, probabilities, difference."""
    what = Intervention(
        prompt=SENTENCE, other=SENTENCE.replace("John gave", "Mary gave")
    )
    result = intervene(Bench(model), what)
    before = [[row.token, row.before] for row in result.top().itertuples()]
    return {
        "prompt": what.prompt,
        "other": what.other,
        "before": before,
        "diff": result.diff_before,
    }


def write_first(
    folder: Path,
    config: dict
    | None = None,  # None: the lab is not there, and nothing happens on the first page
) -> None:
    """Write the script of the site's first page."""
    text = "// The lab was not built.\n"
    if config is not None:
        script = front_end("dom", "tokenizer", "web", "load", "lab", "first")
        text = f"(() => {{\nconst CONFIG = {json.dumps(config)};\n{script}}})();\n"
    (folder / FIRST).parent.mkdir(exist_ok=True)
    (folder / FIRST).write_text(text, encoding="utf-8")


def write_without(
    path: Path | str,
    why: str,
    home: str | None = None,
) -> None:
    """Write a page in the lab's place that says why it is not there, and leads
    to the circuit's page."""
    template = Environment(
        undefined=StrictUndefined, trim_blocks=True, autoescape=True
    ).from_string((FRONT_END / "without.html.j2").read_text(encoding="utf-8"))
    Path(path).write_text(
        template.render(why=why, home=home, tool_css=Markup(tool_css())),
        encoding="utf-8",
    )
    write_first(Path(path).parent)
