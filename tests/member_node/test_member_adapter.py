"""LoRA adapters: where they start, what is refused, and that others' tools read them."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save as encode
from training_kit import LORA, attached, fresh, noise
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from fedproto.errors import LocalFault
from fedproto.layout import AdapterLayout, vector_digest
from member_node import adapter

TOKENS = torch.arange(40).view(2, 20)
BASE = "b" * 64


def logits(net):
    with torch.no_grad():
        return net(input_ids=TOKENS).logits


def refused(code, act):
    with pytest.raises(LocalFault) as caught:
        act()
    assert caught.value.code == code
    return caught.value.why


@pytest.fixture(scope="module")
def wrapped():
    return attached()


@pytest.fixture
def saved(wrapped, tmp_path):
    _, layout = wrapped
    adapter.save(tmp_path / "a", LORA, layout, noise(layout), BASE)
    return tmp_path / "a"


def test_a_fresh_adapter_leaves_every_logit_as_it_was():
    plain = logits(fresh())
    net, _ = attached()
    assert torch.equal(plain, logits(net))


def test_only_the_adapter_is_trained():
    net, layout = attached()
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert trained == layout.size


def test_the_initial_adapter_follows_from_layout_and_seed_alone():
    (one, layout), (other, _) = attached(7), attached(8)
    torch.manual_seed(999)
    again, _ = attached(7)
    assert np.array_equal(adapter.to_flat(one, layout), adapter.to_flat(again, layout))
    assert not np.array_equal(adapter.to_flat(one, layout), adapter.to_flat(other, layout))
    assert np.array_equal(adapter.initial(layout, 7), adapter.to_flat(one, layout))


def test_the_initial_adapter_never_changes_between_versions():
    """The digest stands in ledgers: another torch, numpy or machine must give the same."""
    layout = AdapterLayout.of(
        {
            "m.q_proj.lora_A.weight": np.zeros((4, 10), np.float32),
            "m.q_proj.lora_B.weight": np.zeros((6, 4), np.float32),
        }
    )
    start = adapter.initial(layout, 1)
    assert vector_digest(start) == (
        "f0e92e8bc920f48f60b893f31dd1494e07dfed06bc808d315f7d6422cb5e5ef8"
    )
    assert np.abs(start[:40]).max() <= 1 / np.sqrt(10)
    assert np.abs(start[:40]).min() > 0
    assert not start[40:].any()


def test_a_vector_goes_in_and_comes_out_unchanged(wrapped):
    net, layout = wrapped
    flat = noise(layout, 3)
    adapter.load_flat(net, layout, flat)
    assert np.array_equal(adapter.to_flat(net, layout), flat)


@pytest.mark.parametrize("bend", ["short", "nan", "double"])
def test_a_vector_of_another_layout_is_refused(wrapped, bend):
    net, layout = wrapped
    flat = noise(layout)
    bent = {
        "short": flat[:-1],
        "nan": np.where(np.arange(flat.size) == 5, np.float32(np.nan), flat),
        "double": flat.astype(np.float64),
    }[bend]
    before = adapter.to_flat(net, layout)
    refused("RNM-MODEL-0002", lambda: adapter.load_flat(net, layout, bent))
    assert np.array_equal(adapter.to_flat(net, layout), before)


def test_a_target_that_the_base_lacks_is_refused():
    targets = ("fc_in", "q_proj")
    why = refused(
        "RNM-MODEL-0002", lambda: adapter.attach(fresh(), replace(LORA, targets=targets), 1)
    )
    assert "fc_in" in why
    assert "q_proj" not in why


def mixture_of_experts():
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        # The first layer is dense, so that gate_proj is the name of a linear module as well.
        mlp_only_layers=[0],
    )
    return AutoModelForCausalLM.from_config(config)


def test_routed_experts_and_the_router_are_never_adapted_unasked():
    dense = ("down_proj", "gate_proj", "up_proj")
    refused(
        "RNM-MODEL-0002",
        lambda: adapter.attach(mixture_of_experts(), replace(LORA, targets=dense), 1),
    )


def test_attention_of_a_mixture_of_experts_is_adapted():
    attention = ("k_proj", "o_proj", "q_proj", "v_proj")
    net = adapter.attach(mixture_of_experts(), replace(LORA, targets=attention), 1)
    assert {key.split(".")[-3] for key in adapter.parameters(net)} == set(attention)


def test_peft_loads_what_is_saved(wrapped, saved):
    net, layout = wrapped
    adapter.load_flat(net, layout, noise(layout))
    loaded = PeftModel.from_pretrained(fresh(), saved)
    assert torch.equal(logits(loaded), logits(net))
    assert not torch.equal(logits(loaded), logits(fresh()))
    assert json.loads((saved / adapter.CONFIG).read_text())["base_model_name_or_path"] == BASE


def test_what_is_saved_is_read_back_and_private(wrapped, saved):
    _, layout = wrapped
    assert np.array_equal(adapter.read(saved, layout), noise(layout))
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o600}
    assert saved.stat().st_mode & 0o777 == 0o700


def test_a_crash_while_saving_leaves_no_mixture(wrapped, saved, monkeypatch):
    _, layout = wrapped
    written = []

    def dies(path, data, mode):
        written.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter, "write_atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        adapter.save(saved, LORA, layout, noise(layout, 9), BASE)
    assert written == [adapter.WEIGHTS]
    refused("RNM-MODEL-0003", lambda: adapter.read(saved, layout))


def test_no_adapter_is_a_named_error(wrapped, tmp_path):
    refused("RNM-MODEL-0003", lambda: adapter.read(tmp_path / "none", wrapped[1]))


def test_a_foreign_adapter_is_refused(wrapped, saved):
    _, layout = wrapped
    name = layout.tensors[0].name
    tensors = {n: np.ascontiguousarray(t) for n, t in layout.unflatten(noise(layout)).items()}
    bent = {
        "another name": {("x" if n == name else n): t for n, t in tensors.items()},
        "one more": {**tensors, "extra": np.zeros(1, np.float32)},
        "one less": {n: t for n, t in tensors.items() if n != name},
        "another shape": {n: (t.T.copy() if n == name else t) for n, t in tensors.items()},
        "another type": {n: t.astype(np.float16) for n, t in tensors.items()},
        "not finite": {n: t * np.float32(np.inf) for n, t in tensors.items()},
    }
    for foreign in bent.values():
        (saved / adapter.WEIGHTS).write_bytes(encode(foreign))
        refused("RNM-MODEL-0002", lambda: adapter.read(saved, layout))


def framed(header, body=b""):
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02",
        struct.pack("<Q", 1 << 62) + b"{}",
        framed(b" " * (1 << 20) + b"{"),
        framed(b"not json"),
        framed(b"\xff\xfe"),
        framed(b"[]"),
        framed(b"3"),
        framed(b'{"a": 3}'),
        framed(b'{"a": {"dtype": "F32"}}'),
        framed(b"[" * 100_000),
        framed(b"{}", b"\0" * (1 << 22)),
    ],
    ids=lambda data: f"{len(data)}",
)
def test_a_damaged_file_is_refused_before_it_is_loaded(wrapped, saved, data, monkeypatch):
    def never(_):
        raise AssertionError("the tensors were loaded")

    monkeypatch.setattr("safetensors.numpy.load", never)
    (saved / adapter.WEIGHTS).write_bytes(data)
    refused("RNM-MODEL-0002", lambda: adapter.read(saved, wrapped[1]))


def test_a_file_cut_short_is_refused(wrapped, saved):
    whole = (saved / adapter.WEIGHTS).read_bytes()
    (saved / adapter.WEIGHTS).write_bytes(whole[:-4])
    refused("RNM-MODEL-0002", lambda: adapter.read(saved, wrapped[1]))


def test_offsets_that_overlap_are_refused(wrapped, saved):
    whole = (saved / adapter.WEIGHTS).read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + size])
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    (saved / adapter.WEIGHTS).write_bytes(framed(json.dumps(header).encode(), whole[8 + size :]))
    refused("RNM-MODEL-0002", lambda: adapter.read(saved, wrapped[1]))
