"""Muon against torch's own, whose arithmetic is bfloat16, and against the SVD."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from peftkit.methods.muon import make_muon, orthogonalize

ARGS = SimpleNamespace(
    learning_rate=1e-2, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8
)


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=48, tie_word_embeddings=True,
        )
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_orthogonalize_keeps_directions_and_brings_singular_values_near_one(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert s.max() / s.min() > 1.5
    found = u.T @ orthogonalize(matrix) @ vh.T
    values = found.diagonal()
    assert ((values > 0.6) & (values < 1.3)).all()
    torch.testing.assert_close(found - values.diag(), torch.zeros_like(found), atol=1e-4, rtol=0)


def test_matrices_step_as_torchs_muon_and_the_rest_as_adamw() -> None:
    ours, theirs = tiny_llama(), tiny_llama()
    matrices = [p for n, p in theirs.named_parameters() if p.ndim == 2 and "embed" not in n]
    embeddings = [p for n, p in theirs.named_parameters() if "embed" in n]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    reference = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(embeddings, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95)),
        torch.optim.AdamW(vectors, lr=1e-2, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    muon = make_muon(ours, ARGS)
    ids = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        # both step on the same gradients, so that bfloat16's differences do not add up
        ours(input_ids=ids, labels=ids).loss.backward()
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            its.grad = mine.grad.clone()
        before = [p.clone() for p in ours.parameters()]
        muon.step()
        muon.zero_grad()
        for optimizer in reference:
            optimizer.step()
        for (name, mine), its, old in zip(
            ours.named_parameters(), theirs.parameters(), before, strict=True
        ):
            step, expected = mine - old, its - old
            if mine.ndim == 2 and "embed" not in name:
                assert (step - expected).norm() < 0.15 * expected.norm(), name  # bfloat16
            else:
                torch.testing.assert_close(mine, its)
        theirs.load_state_dict(ours.state_dict())


def test_state_survives_saving(tmp_path) -> None:
    def steps(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, num: int) -> None:
        ids = torch.arange(32).reshape(2, 16)
        for _ in range(num):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    whole = tiny_llama()
    steps(whole, make_muon(whole, ARGS), 4)
    first = tiny_llama()
    optimizer = make_muon(first, ARGS)
    steps(first, optimizer, 2)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    resumed = make_muon(first, ARGS)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    steps(first, resumed, 2)
    for one, other in zip(whole.parameters(), first.parameters(), strict=True):
        assert torch.equal(one, other)
