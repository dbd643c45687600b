"""What `renmei model edge` does: merge, export, measure what the export costs, publish it by digest.

A shell module.
"""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedproto import jcs
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault
from fedproto.ids import Digest

ORIGIN, ADAPTERS = "edge.json", "adapters.json"
_SEED = 20


def edge(args: argparse.Namespace, console: Console) -> Reply:
    """Export a release with its adapters for devices; say what is lost and how fast it is."""
    from base_model import dataset, edge_runtime, releases, weights
    from base_model import edge as edges
    from base_model import tokenizer as tokenizers

    directory, out = Path(args.release), Path(args.out)
    found = releases.open_release(directory, releases.named(args.digest))
    data = Path(args.data)
    texts = [
        text
        for part in dataset.held_out_texts(data, dataset.open_manifest(data)).values()
        for text in part[: max(args.documents, 0)]
    ]
    if not texts:
        raise LocalFault(
            "RNM-DATA-0003",
            what="nothing was exported",
            why="there is no held-out text to measure the export on",
            mend="build data with text, and ask for one document or more",
        )
    progress = console.progress(console.say(en="edge export", ja="エッジ用変換"), 4, "parts")
    try:
        model = weights.load_base(directory, found.manifest)
        words = tokenizers.load(directory)
        adapters = [Path(name) for name in args.adapter]
        model, digests = edges.merge(model, adapters, found.manifest)
        progress.advance(1, "export")
        merged = _publish_merged(model, words, directory, out, digests) if digests else directory
        made = _publish(model, words, out, merged.name)
        progress.advance(1, "loss")
        window = int(releases.recipe_of(directory)["train"]["sequence"])
        runners = {
            "original": edge_runtime.original(model),
            "float32": edge_runtime.load(made / edges.WHOLE),
            "int8": edge_runtime.load(made / edges.QUANTISED),
        }
        losses = _losses(runners, model, words, texts, window)
        progress.advance(1, "speed")
        speed = edge_runtime.speeds(runners, model.config, window=window)
        progress.advance(1, "")
    finally:
        progress.close()
    sizes = {
        "original": sum(p.stat().st_size for p in directory.glob("*.safetensors")),
        "float32": _size(made, edges.WHOLE),
        "int8": _size(made, edges.QUANTISED),
    }
    rows: dict[str, Any] = {
        name: {
            "bytes": sizes[name],
            **losses[name],
            "prompt_tokens_per_s": round(speed[name].prompt),
            "decode_tokens_per_s": round(speed[name].decode),
        }
        for name in runners
    }
    return Reply(
        data={
            "edge": made.name,
            "path": str(made),
            "merged": merged.name,
            "merged_path": str(merged),
            "adapters": list(digests),
            "forms": rows,
        },
        text="\n".join([_line(name, row, console) for name, row in rows.items()] + [str(made)]),
    )


def _publish_merged(
    model: Any, words: Any, directory: Path, out: Path, digests: list[Digest]
) -> Path:
    """Publish the merged weights as a release, with the origin of the one they came from."""
    from base_model import manifest, releases, weights

    names = (releases.RECIPE, manifest.FILE, releases.CODE)
    beside = {name: (directory / name).read_bytes() for name in names}
    beside[ADAPTERS] = jcs.dumps({"v": 1, "base": directory.name, "adapters": list(digests)})
    return weights.publish(model, words, out / "models", beside=beside)


def _publish(model: Any, words: Any, out: Path, release: str) -> Path:
    """Publish both graphs, the tokenizer and what they came from."""
    from base_model import edge as edges
    from base_model import tokenizer as tokenizers
    from base_model import weights

    libraries: dict[str, jcs.Json] = {
        name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")
    }
    _, layers, _, heads, _, width = edges.no_past(model.config).shape
    origin = jcs.dumps(
        {
            "v": 1,
            "release": release,
            "past": [2, layers, "batch", heads, "places", width],
            "int8": "dynamic, weights by channel",
            "libraries": libraries,
        }
    )

    def write(directory: Path) -> None:
        edges.write(model, directory)
        tokenizers.save(words, directory)
        (directory / ORIGIN).write_bytes(origin)

    return weights.publish_files(out / "edge", write)


def _losses(
    runners: dict[str, Any], model: Any, words: Any, texts: list[str], window: int
) -> dict[str, dict[str, Any]]:
    """Return bits per byte of each form, and its difference from the original with an interval."""
    from base_model import edge_runtime, evaluate

    scores = {
        name: edge_runtime.score(run, model.config, words, texts, window=window)
        for name, run in runners.items()
    }
    first = evaluate.bits_per_byte(scores["original"])
    told = {}
    for name, found in scores.items():
        bits = evaluate.bits_per_byte(found)
        low, high = evaluate.bootstrap_difference([found], [scores["original"]], _SEED)
        told[name] = {
            "bits_per_byte": round(bits, 4),
            # Plus zero: a difference that rounds to nothing has no sign.
            "loss": round(bits - first, 4) + 0.0,
            "loss_low": round(low, 4) + 0.0,
            "loss_high": round(high, 4) + 0.0,
        }
    return told


def _size(directory: Path, name: str) -> int:
    """Return the bytes of a graph and of the weights beside it."""
    return sum(path.stat().st_size for path in directory.glob(f"{name}*"))


def _line(name: str, row: dict[str, Any], console: Console) -> str:
    return console.say(
        en=f"{name:<9} {row['bytes']:>13,} bytes  {row['bits_per_byte']:.4f} bits a byte "
        f"({row['loss']:+.4f}, {row['loss_low']:.4f} to {row['loss_high']:.4f})  "
        f"prompt {row['prompt_tokens_per_s']:,}/s  decode {row['decode_tokens_per_s']:,}/s",
        ja=f"{name:<9} {row['bytes']:>13,} バイト  1バイト当たり {row['bits_per_byte']:.4f} ビット "
        f"(差 {row['loss']:.4f}、{row['loss_low']:.4f}～{row['loss_high']:.4f})  "
        f"入力 {row['prompt_tokens_per_s']:,}/秒  逐次 {row['decode_tokens_per_s']:,}/秒",
    )
