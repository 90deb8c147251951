"""The causal transformer: causality, padding, and its two ways of computing the same thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks import CausalTransformer, TransformerConfig, clip_gradient, flatten_parameters, make_linear

NUM_TOKENS, LENGTH = 5, 7


def make_network(seed: int = 0, num_layers: int = 2) -> CausalTransformer:
    config = TransformerConfig(num_layers=num_layers, width=16, num_heads=2)
    return CausalTransformer(NUM_TOKENS, LENGTH, config, torch.Generator().manual_seed(seed))


def random_rows(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, NUM_TOKENS, (batch, LENGTH)))


@torch.no_grad()
def test_state_before_a_column_depends_on_earlier_columns_only() -> None:
    network, rows = make_network(), random_rows(3)
    before = network(rows)
    for column in range(LENGTH):
        changed = rows.clone()
        changed[:, column] = (changed[:, column] + 1) % NUM_TOKENS
        differs = (network(changed) != before).any(-1)
        assert not differs[:, : column + 1].any()
        assert differs[:, column + 1 :].all()


@torch.no_grad()
def test_padding_is_read_by_nobody() -> None:
    network, rows = make_network(), random_rows(4)
    rows[0, :3] = NUM_TOKENS  # a short prompt
    rows[1, 4:] = NUM_TOKENS  # a short text
    rows[2, :2] = rows[2, 6:] = NUM_TOKENS
    real = torch.cat([torch.ones(4, 1, dtype=torch.bool), rows[:, :-1] != NUM_TOKENS], dim=1)
    before = network(rows)
    network.token_embedding[NUM_TOKENS] += 3.0
    after = network(rows)
    assert torch.equal(before[real], after[real])
    # The state at a padding position is computed from padding, so it moves: the perturbation was seen there.
    assert (before[~real] != after[~real]).any(-1).all()


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_first_only_leaves_out_states(num_layers: int) -> None:
    network, rows = make_network(num_layers=num_layers), random_rows(3)
    rows[0, :2] = NUM_TOKENS
    torch.testing.assert_close(network(rows, 3), network(rows)[:, 3:], atol=1e-6, rtol=0)


@torch.no_grad()
def test_decoding_equals_the_full_pass_for_rows_at_different_columns() -> None:
    network, rows = make_network(), random_rows(4)
    rows[1, :2] = NUM_TOKENS  # left-padded
    full = network(rows)
    cache = network.new_cache(6)  # rows live in places of their own
    places = torch.tensor([5, 0, 3, 2])
    starts = torch.tensor([1, 3, 0, 2])
    for place, row, start in zip(places, rows, starts, strict=True):
        if start:
            network(row[None, :start], 0, cache, place[None])
    for step in range(4):
        columns = starts + step
        shown = rows.masked_fill(torch.arange(LENGTH) >= columns[:, None], NUM_TOKENS)
        every_row = torch.full((6, LENGTH), NUM_TOKENS)
        every_row[places] = shown
        every_column = torch.zeros(6, dtype=torch.long)
        every_column[places] = columns
        hidden = network.decode(every_row.numpy(), every_column.numpy(), cache)
        torch.testing.assert_close(hidden[places], full[torch.arange(4), columns], atol=1e-5, rtol=0)


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_network(seed=3)
    assert torch.equal(before, torch.get_rng_state())
    same, other = make_network(seed=3), make_network(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.token_embedding, other.token_embedding)


def test_make_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    orthogonal = make_linear(4, 4, generator, gain=2.0)
    torch.testing.assert_close(orthogonal.weight @ orthogonal.weight.T, 4 * torch.eye(4), atol=1e-5, rtol=0)
    assert not orthogonal.bias.any()
    assert not make_linear(4, 1, generator, std=0.0).weight.any()
    assert make_linear(300, 300, generator, std=0.01).weight.std().item() == pytest.approx(0.01, rel=0.02)
    layer, x = make_linear(3, 2, generator, std=1.0), torch.randn(5, 4, 3)
    assert (layer.in_features, layer.out_features, tuple(layer.weight.shape)) == (3, 2, (3, 2))
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([10.0, 20.0]))
    torch.testing.assert_close(layer(x), x @ layer.weight + layer.bias)
    with pytest.raises(ValueError, match="exactly one"):
        make_linear(4, 4, generator)


def test_flatten_parameters_shares_memory_and_gradients() -> None:
    network, reference = make_network(), make_network()
    flat, gradient = flatten_parameters(network)
    assert flat.numel() == sum(p.numel() for p in reference.parameters())
    rows = random_rows(2)
    for model in (network, reference):
        model(rows).square().sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in reference.parameters() if p.grad is not None])
    assert flat.grad is gradient
    torch.testing.assert_close(gradient, expected)
    torch.optim.Adam([flat], 0.1).step()
    assert not torch.equal(network.token_embedding, reference.token_embedding)
    # Loading writes into the vector too.
    network.load_state_dict(reference.state_dict())
    torch.testing.assert_close(flat.detach(), torch.cat([p.detach().reshape(-1) for p in reference.parameters()]))


def test_clip_gradient_literal() -> None:
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    clip_gradient(long, 1.0)
    clip_gradient(short, 1.0)
    torch.testing.assert_close(long, torch.tensor([0.6, 0.8]))
    assert short.tolist() == torch.tensor([0.3, 0.4]).tolist()


def test_every_parameter_gets_a_gradient() -> None:
    network, rows = make_network(), random_rows(8)
    rows[:, 0] = torch.arange(8) % NUM_TOKENS
    # LayerNorm's output has a fixed square norm: weigh the features to get a gradient everywhere.
    (network(rows) * torch.linspace(-1, 1, 16)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        TransformerConfig(width=10, num_heads=4)
    with pytest.raises(ValueError, match="num_layers"):
        TransformerConfig(num_layers=0)
