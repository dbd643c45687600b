"""A release from the command line: made, verified, examined, and every way in which it is refused."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from base_kit import TINY
from dataset_kit import OPTIONS, made_lock
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from base_model import dataset, manifest, releases, weights
from base_model.model import build
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.events.models import BaseModel
from fedproto.ids import Digest, sha256_hex
from fedproto.schema import from_json
from renmei import cli

RECIPE = """
name = "tiny"
[model]
hidden = 32
layers = 1
feed_forward = 64
heads = 2
key_value_heads = 1
head_dim = 16
[train]
steps = 6
batch = 4
sequence = 32
warm_up = 2
compile = false
[canaries]
count = 2
[mixture]
can-series = 1
more = 1
prose = 2
"""


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release as `renmei model pretrain` writes it."""
    root = tmp_path_factory.mktemp("release")
    (root / "recipe.toml").write_text(RECIPE)
    command = [str(Path(sys.executable).parent / "renmei"), "--json", "model", "pretrain"]
    words = [str(root / "recipe.toml"), "--data", str(data), "--out", str(root / "out")]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["data"]["path"])


def renmei(*words: object, lang: str = "en") -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = cli.main(["model", *map(str, words), "--lang", lang, "--json"])
    return status, json.loads(out.getvalue())


def changed(made: Path, root: Path, change: Callable[[Path], object]) -> Path:
    """Copy a release, change it, and name it by the manifest that then describes it."""
    copy = root / "copy"
    shutil.copytree(made, copy)
    change(copy)
    (copy / weights.MANIFEST).unlink()
    listed = [
        {"name": p.name, "sha256": sha256_hex(p.read_bytes()), "bytes": p.stat().st_size}
        for p in sorted(copy.iterdir())
    ]
    raw = jcs.dumps({"v": 1, "files": listed})  # type: ignore[dict-item]
    (copy / weights.MANIFEST).write_bytes(raw)
    return copy.rename(root / sha256_hex(raw))


def edited(name: str, **values: object) -> Callable[[Path], object]:
    def change(copy: Path) -> None:
        path = copy / name
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))

    return change


# verified


def test_a_release_says_what_it_is_and_where_it_came_from(made: Path, data: Path) -> None:
    status, told = renmei("release", made)
    assert status == 0
    found = told["data"]
    model = AutoModelForCausalLM.from_pretrained(made)
    assert found["manifest_sha256"] == made.name
    assert found["corpus_sha256"] == sha256_hex((data / manifest.FILE).read_bytes())
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["architecture"] == "qwen3"
    assert found["bytes"] == sum(
        p.stat().st_size for p in made.iterdir() if p.name != weights.MANIFEST
    )
    assert found["licences"] == ["MIT"]
    assert releases.recipe_of(made)["canaries"] == {"count": 2, "weight": 1, "seed": 11}
    code = json.loads((made / releases.CODE).read_bytes())
    source = Path(releases.__file__)
    assert code["base_model"]["releases.py"] == sha256_hex(source.read_bytes())
    assert code["libraries"]["torch"].startswith("2.")


def test_a_release_loads_with_stock_transformers_and_takes_an_adapter(made: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(made)
    words = AutoTokenizer.from_pretrained(made)
    batch = words("車速の制御。", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = model(input_ids=batch).logits
        config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(model, config)
        assert torch.equal(adapted(input_ids=batch).logits, before)
    assert adapted.get_nb_trainable_parameters()[0] > 0


def test_sharded_weights_are_the_same_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = build(TINY, 7)
    whole = weights.publish(model, tokenizer, tmp_path / "whole")
    parts = weights.publish(model, tokenizer, tmp_path / "parts", shard="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 2
    one = weights.load_base(whole, Digest(whole.name)).state_dict()
    other = weights.load_base(parts, Digest(parts.name)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_terms_that_it_writes_are_what_is_put_to_approval(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "terms.json"
    words = ("--terms", file, "--name", "laptop", "--licence", "Apache-2.0")
    status, told = renmei("release", made, *words)
    assert status == 0
    assert told["next"] == [f"renmei govern approve-base --terms {file}"]
    terms = from_json(BaseModel, jcs.loads(jcs.dumps(json.loads(file.read_bytes()))))
    assert (terms.manifest_sha256, terms.name) == (made.name, "laptop")
    assert terms.parameters == told["data"]["parameters"]


def test_terms_without_a_name_or_to_nowhere_are_not_half_written(
    made: Path, tmp_path: Path
) -> None:
    file = tmp_path / "terms.json"
    status, told = renmei("release", made, "--terms", file, "--name", "laptop")
    assert (status, told["data"]["code"]) == (2, "RNM-CONF-0001")
    assert not file.exists()
    status, told = renmei(
        "release", made, "--terms", tmp_path / "none" / "t", "--name", "a", "--licence", "MIT"
    )
    assert (status, told["data"]["code"]) == (2, "RNM-CONF-0001")
    assert not list(tmp_path.iterdir())


# refused


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "recipe.json", "data.json", "code.json"]
)
def test_a_changed_byte_in_any_file_is_refused(made: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    status, told = renmei("release", copy)
    assert (status != 0, told["data"]["code"]) == (True, "RNM-MODEL-0001")
    assert name in told["data"]["why"]


def run_me(copy: Path) -> None:
    (copy / "modeling_evil.py").write_text("raise SystemExit('pwned')")


def pickled(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (run_me, "modeling_evil.py"),
        (pickled, "pytorch_model.bin"),
        (edited("config.json", auto_map={"AutoModel": "modeling_evil.M"}), "brings code"),
        (edited("config.json", model_type="evil"), "not a stock one"),
        (lambda copy: (copy / "recipe.json").unlink(), "lacks recipe.json"),
        (lambda copy: (copy / "data.json").unlink(), "lacks data.json"),
        (lambda copy: (copy / "code.json").unlink(), "lacks code.json"),
        (lambda copy: (copy / "config.json").write_text("[]"), "not a JSON object"),
        (lambda copy: (copy / "config.json").write_text("{"), "not a JSON object"),
    ],
)
def test_a_release_of_good_digests_that_holds_what_none_may_is_refused(
    made: Path, tmp_path: Path, change: Callable[[Path], object], why: str
) -> None:
    other = changed(made, tmp_path, change)
    status, told = renmei("release", other)
    assert (status != 0, told["data"]["code"]) == (True, "RNM-MODEL-0001")
    assert why in told["data"]["why"]


def test_another_release_than_the_one_that_is_meant_is_refused(made: Path, tmp_path: Path) -> None:
    status, told = renmei("release", made, "--digest", "f" * 64)
    assert (status != 0, told["data"]["code"]) == (True, "RNM-MODEL-0001")
    status, told = renmei("release", made, "--digest", "latest")
    assert (status, told["data"]["code"]) == (2, "RNM-CONF-0001")
    status, told = renmei("release", tmp_path / ("e" * 64))
    assert (status != 0, told["data"]["code"]) == (True, "RNM-MODEL-0003")


def test_a_recipe_that_is_none_is_refused_when_it_is_read(made: Path, tmp_path: Path) -> None:
    other = changed(made, tmp_path, lambda copy: (copy / "recipe.json").write_text("{}"))
    with pytest.raises(LocalFault) as caught:
        releases.recipe_of(other)
    assert caught.value.code == "RNM-MODEL-0001"


# examined


def test_the_command_examines_it_and_writes_the_report_that_is_attested(
    made: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    status, told = renmei("evaluate", made, "--data", data, "--documents", 4, "--out", out)
    assert (status, told["warnings"]) == (0, [])
    assert told["next"] == [f"renmei govern attest --report {out}"]
    report = json.loads(out.read_bytes())
    assert report == told["data"]
    assert report["artifact"] == made.name
    figures = {"bits_per_byte", "bits_per_byte.prose", "exposure", "exposure.x1", "exposure.x2"}
    assert figures <= report["metrics"].keys()
    # Six steps teach nothing: a forecast must not beat persistence by a wide margin, nor be missing.
    assert float(report["metrics"]["series.over_persistence"]) > 0.5


def test_who_examines_on_another_build_of_the_data_is_warned(
    made: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("base_model.corpus.DOCSTRING_PACKAGES", ())
        options = OPTIONS.__class__(domains=("base",), vocabulary=400, bins=32)
        dataset.build(made_lock(root), root, root / "out", options)
    status, told = renmei("evaluate", made, "--data", root / "out", "--documents", 2, lang="ja")
    assert status == 0
    assert "別のデータ" in told["warnings"][0]


def test_nothing_is_examined_with_no_document_or_no_data(made: Path, tmp_path: Path) -> None:
    status, told = renmei("evaluate", made, "--data", tmp_path, "--documents", 0)
    assert (status, told["data"]["code"]) == (2, "RNM-CONF-0001")
    status, told = renmei("evaluate", made, "--data", tmp_path)
    assert (status != 0, told["data"]["code"]) == (True, "RNM-DATA-0001")
