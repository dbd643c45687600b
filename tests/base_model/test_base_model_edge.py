"""The export for devices: the same answers, token by token too; adapters merged; nothing of this machine."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from base_kit import TINY
from engine_kit import DENSE, MOE
from engine_kit import RECIPE as SMALL
from peft import PeftModel
from tokenizers import Tokenizer

from base_model import edge, edge_runtime, manifest, releases, weights
from base_model import tokenizer as tokenizers
from base_model.engine import network
from base_model.evaluate import score as score_original
from base_model.model import build
from fedproto.errors import LocalFault
from fedproto.governance.plan import Lora
from fedproto.ids import Digest
from member_node import adapter
from renmei import cli

VOCABULARY = 300
BASE = Digest("a" * 64)
LORA = Lora(rank=2, alpha=4, targets=("q_proj", "v_proj"))


def tokens(batch: int, places: int, seed: int = 3) -> torch.Tensor:
    chance = np.random.default_rng(seed)
    return torch.from_numpy(chance.integers(0, VOCABULARY, (batch, places), dtype=np.int64))


def saved_adapter(directory: Path, base: str, *, seed: int = 1) -> Path:
    """Write an adapter with something in it, as a member's node does."""
    model = adapter.attach(build(TINY, 7), LORA, seed)
    layout = adapter.layout_of(model)
    values = np.random.default_rng(seed).normal(0, 0.3, layout.size).astype(np.float32)
    adapter.save(directory, LORA, layout, values, Digest(base))
    return directory


@pytest.fixture(scope="module", params=[DENSE, MOE], ids=["dense", "moe"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    model = network.build(request.param, VOCABULARY, 7).float().eval()
    out = tmp_path_factory.mktemp("edge")
    edge.write(model, out)
    return model, out


# what it answers


def test_a_prompt_of_any_shape_has_the_same_logits(exported: tuple[Any, Path]) -> None:
    model, out = exported
    run = edge_runtime.load(out / edge.WHOLE)
    for batch, places in ((1, 1), (1, 40), (3, 17)):
        given = tokens(batch, places)
        with torch.no_grad():
            expected = model(input_ids=given).logits
        logits, present = run(given, edge.no_past(model.config, batch))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        assert present.shape[-2] == places


def test_token_by_token_it_answers_as_it_does_at_once(exported: tuple[Any, Path]) -> None:
    model, out = exported
    run = edge_runtime.load(out / edge.WHOLE)
    given = tokens(2, 12)
    whole, _ = run(given, edge.no_past(model.config, 2))
    head, past = run(given[:, :5], edge.no_past(model.config, 2))
    parts = [head]
    for place in range(5, 12):
        logits, past = run(given[:, place : place + 1], past)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_int8_is_smaller_and_near(exported: tuple[Any, Path]) -> None:
    model, out = exported
    given = tokens(2, 30)
    whole, _ = edge_runtime.load(out / edge.WHOLE)(given, edge.no_past(model.config, 2))
    small, _ = edge_runtime.load(out / edge.QUANTISED)(given, edge.no_past(model.config, 2))
    assert not torch.equal(small, whole)
    error = (small - whole).pow(2).mean().sqrt() / whole.std()
    assert error < 0.1
    stored = {t.data_type for t in onnx.load(out / edge.QUANTISED).graph.initializer}
    assert onnx.TensorProto.INT8 in stored


def test_the_runtime_scores_text_as_the_evaluation_does(tokenizer: Tokenizer) -> None:
    model = build(TINY, 7)
    texts = ["信号の値は車速です。" * 5, "BO_ 12 MSG84: 8", ""]
    own = score_original(model, tokenizer, texts, window=16)
    found = edge_runtime.score(
        edge_runtime.original(model), model.config, tokenizer, texts, window=16
    )
    assert [s.bytes for s in found] == [s.bytes for s in own]
    # The evaluation computes in bf16.
    for one, other in zip(found, own, strict=True):
        assert one.nats == pytest.approx(other.nats, rel=0.01)


def test_every_form_is_timed(exported: tuple[Any, Path]) -> None:
    model, out = exported
    runners = {
        "original": edge_runtime.original(model),
        "int8": edge_runtime.load(out / edge.QUANTISED),
    }
    found = edge_runtime.speeds(runners, model.config, window=16)
    assert found.keys() == runners.keys()
    assert all(speed.prompt > 0 and speed.decode > 0 for speed in found.values())


# what is written


def test_a_graph_says_nothing_of_the_machine_that_made_it(exported: tuple[Any, Path]) -> None:
    _, out = exported
    assert sorted(path.name for path in out.iterdir()) == [edge.QUANTISED, edge.WHOLE]
    for path in out.iterdir():
        content = path.read_bytes()
        for word in (b"site-packages", b"/home", b"/work", b".py", str(Path.home()).encode()):
            assert word not in content, (path.name, word)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        edge.write(build(TINY, 7), tmp_path / name)
        made.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert made[0] == made[1]


def test_what_is_too_large_for_protobuf_lies_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "_LARGE", 0)
    model = build(TINY, 7)
    edge.write(model, tmp_path)
    assert f"{edge.WHOLE}.data" in {path.name for path in tmp_path.iterdir()}
    given = tokens(1, 9)
    for name in (edge.WHOLE, edge.QUANTISED):
        logits, _ = edge_runtime.load(tmp_path / name)(given, edge.no_past(model.config))
        with torch.no_grad():
            torch.testing.assert_close(logits, model(input_ids=given).logits, rtol=0.2, atol=0.05)


# adapters


def test_adapters_that_were_active_side_by_side_are_merged(tmp_path: Path) -> None:
    paths = [saved_adapter(tmp_path / str(seed), BASE, seed=seed) for seed in (1, 2)]
    model = build(TINY, 7)
    merged, digests = edge.merge(build(TINY, 7), paths, BASE)
    assert len(set(digests)) == 2
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    beside = PeftModel.from_pretrained(model, str(paths[0]), adapter_name="one")
    beside.load_adapter(str(paths[1]), adapter_name="two")
    beside.base_model.set_adapter(["one", "two"])
    given = tokens(2, 20)
    with torch.no_grad():
        together, found = beside(input_ids=given).logits, merged(input_ids=given).logits
        plain = build(TINY, 7)(input_ids=given).logits
    torch.testing.assert_close(found, together, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 0.01


def edit(directory: Path, **values: object) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (lambda d: edit(d, base_model_name_or_path="b" * 64), "RNM-MODEL-0002", "base model bbbb"),
        (lambda d: edit(d, base_model_name_or_path=None), "RNM-MODEL-0002", "base model None"),
        (lambda d: edit(d, peft_type="IA3"), "RNM-MODEL-0002", "not LoRA"),
        (
            lambda d: edit(d, auto_mapping={"base_model_class": "M", "parent_library": "evil"}),
            "RNM-MODEL-0002",
            "names classes to import",
        ),
        # Without safetensors PEFT would take a pickle.
        (
            lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"),
            "RNM-MODEL-0003",
            "cannot be read",
        ),
        (lambda d: (d / "adapter_config.json").unlink(), "RNM-MODEL-0003", "cannot be read"),
        (lambda d: (d / "adapter_config.json").write_text("{"), "RNM-MODEL-0003", "cannot be"),
        (lambda d: (d / "adapter_config.json").write_text("[]"), "RNM-MODEL-0002", "not LoRA"),
    ],
)
def test_an_adapter_of_something_else_is_refused(
    tmp_path: Path, change: Any, code: str, why: str
) -> None:
    directory = saved_adapter(tmp_path / "adapter", BASE)
    change(directory)
    with pytest.raises(LocalFault) as caught:
        edge.merge(build(TINY, 7), [directory], BASE)
    assert caught.value.code == code
    assert why in caught.value.why


# the command


@pytest.fixture(scope="module")
def release(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = tokenizers.load(data)
    model = build(replace(TINY, vocabulary=words.get_vocab_size()), 7)
    origin = releases.origin(SMALL, (data / manifest.FILE).read_bytes())
    return weights.publish(model, words, tmp_path_factory.mktemp("release"), beside=origin)


def renmei(*words: object) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = cli.main(["model", *map(str, words), "--json"])
    return status, json.loads(out.getvalue())


def test_the_command_merges_exports_measures_and_publishes_by_digest(
    release: Path, data: Path, tmp_path: Path
) -> None:
    loaded = weights.load_base(release, Digest(release.name))
    attached = adapter.attach(loaded, LORA, 1)
    layout = adapter.layout_of(attached)
    values = np.random.default_rng(1).normal(0, 0.1, layout.size).astype(np.float32)
    adapter.save(tmp_path / "adapter", LORA, layout, values, Digest(release.name))
    words = ["--data", data, "--documents", 2, "--adapter", tmp_path / "adapter"]
    status, told = renmei("edge", release, *words, "--out", tmp_path / "out")
    assert status == 0
    found = told["data"]
    names = {entry.name for entry in weights.verify(Path(found["path"]), found["edge"]).files}
    assert {edge.WHOLE, edge.QUANTISED, "edge.json", "tokenizer.json"} <= names
    origin = json.loads((Path(found["path"]) / "edge.json").read_bytes())
    assert (origin["release"], origin["past"]) == (
        found["merged"],
        [2, 1, "batch", 1, "places", 16],
    )
    merged = Path(found["merged_path"])
    assert releases.open_release(merged).manifest == found["merged"] != release.name
    beside = json.loads((merged / "adapters.json").read_bytes())
    assert (beside["base"], beside["adapters"]) == (release.name, found["adapters"])
    forms = found["forms"]
    assert forms["int8"]["bytes"] < forms["float32"]["bytes"]
    assert forms["original"]["loss"] == 0
    assert abs(forms["float32"]["loss"]) < 0.001
    assert forms["int8"]["loss_low"] <= forms["int8"]["loss"] <= forms["int8"]["loss_high"]
    assert forms["int8"]["decode_tokens_per_s"] > 0


def test_without_adapters_the_release_itself_is_exported_and_again_gives_the_same(
    release: Path, data: Path, tmp_path: Path
) -> None:
    words = ["--data", data, "--documents", 1, "--out", tmp_path]
    first, second = (renmei("edge", release, *words)[1]["data"] for _ in range(2))
    assert first["edge"] == second["edge"]
    assert first["merged"] == release.name
    assert [path.name for path in tmp_path.iterdir()] == ["edge"]


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    release: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["--data", data, "--out", out]
    other = saved_adapter(tmp_path / "other", BASE)
    for extra, code in (
        (["--adapter", other], "RNM-MODEL-0002"),
        (["--digest", "f" * 64], "RNM-MODEL-0001"),
        (["--documents", 0], "RNM-DATA-0003"),
    ):
        status, told = renmei("edge", release, *words, *extra)
        assert (status != 0, told["data"]["code"]) == (True, code)
    assert not out.exists()
