import shutil
from pathlib import Path

import pytest
import torch
from base_kit import TINY
from peft import LoraConfig, get_peft_model

from base_model.model import (
    build,
    compiler_reason,
    document_mask,
    document_positions,
    make_loss,
    token_nats,
)
from base_model.tokenizer import BOS


def tokens(seed: int = 0, rows: int = 3, length: int = 41) -> torch.Tensor:
    made = torch.randint(
        3, TINY.vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed)
    )
    made[:, 0] = BOS
    return made


def nats(model, both: torch.Tensor) -> torch.Tensor:
    x, y = both[:, :-1], both[:, 1:]
    with torch.inference_mode():
        return token_nats(model)(x, y, document_mask(x)).view(y.shape)


def test_one_seed_gives_one_model() -> None:
    first, again, other = build(TINY, 7), build(TINY, 7), build(TINY, 8)
    pairs = zip(first.parameters(), again.parameters(), other.parameters(), strict=True)
    states = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs]
    assert all(same for same, _ in states)
    assert not all(same for _, same in states)


def test_a_packed_document_sees_nothing_of_the_one_before_it() -> None:
    model = build(TINY, 0).eval()
    alone, packed = tokens(1, length=21), torch.cat([tokens(2, length=20), tokens(1, length=21)], 1)
    with_others = nats(model, packed)[:, 20:]
    assert torch.allclose(with_others, nats(model, alone), atol=1e-5)
    # Without the mask and the restart it would: the test can fail.
    x, y = packed[:, :-1], packed[:, 1:]
    with torch.inference_mode():
        logits = model(input_ids=x).logits
    leaky = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    assert not torch.allclose(leaky.view(y.shape)[:, 20:], nats(model, alone), atol=1e-5)


def test_positions_start_again_with_each_document() -> None:
    packed = torch.tensor([[BOS, 5, 6, BOS, 7], [4, 4, BOS, BOS, 9]])
    # A window may begin inside a document: its first part counts from 0 as well.
    assert document_positions(packed).tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 0, 1]]


def test_the_loss_is_the_one_of_transformers_for_a_single_document() -> None:
    model = build(TINY, 0).eval()
    both = tokens()
    with torch.inference_mode():
        theirs = model(input_ids=both, labels=both).loss
    assert nats(model, both).mean().item() == pytest.approx(theirs.item(), rel=1e-5)


def test_chunks_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(TINY, 0).eval()
    whole = nats(model, tokens())
    monkeypatch.setattr("base_model.model._CHUNK", 7)
    assert torch.allclose(nats(model, tokens()), whole, atol=1e-6)


def test_a_fresh_adapter_changes_no_loss_and_only_it_gets_gradients() -> None:
    model = build(TINY, 0)
    before = make_loss(model, compile_=False)(tokens()).item()
    wrapped = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    loss = make_loss(wrapped, compile_=False)(tokens())
    assert loss.item() == before
    loss.backward()
    moved = [name for name, p in wrapped.named_parameters() if p.grad is not None]
    assert moved
    assert all("lora_" in name for name in moved)


def test_without_a_compiler_the_loss_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "C++ compiler" in compiler_reason()
    model = build(TINY, 0)
    assert make_loss(model, compile_=True)(tokens()) == make_loss(model, compile_=False)(tokens())


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiled_loss_is_the_plain_one_within_bf16() -> None:
    assert compiler_reason() == ""
    model = build(TINY, 0)
    compiled, plain = (make_loss(model, compile_=choice)(tokens()) for choice in (True, False))
    assert compiled.item() == pytest.approx(plain.item(), rel=2e-3)
