"""The transformer policy: incremental decoding equals the full pass; sampling; masks; no side effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.networks import TransformerConfig
from agents.policies import IncrementalDecoder, TransformerPolicy, mask_logits, sample

V, P, T = 5, 3, 6
SMALL = TransformerConfig(num_layers=2, width=16, num_heads=2)


def make_policy(prompt_length: int = P, seed: int = 0) -> TransformerPolicy:
    policy = TransformerPolicy(V, prompt_length, T, SMALL, seed=seed)
    with torch.no_grad():  # far from uniform, so that a mistake shows
        policy.policy_head.weight.mul_(100)
        policy.value_head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return policy


class Game:
    """Rows that are written, end after random lengths and begin anew with prompts of random lengths."""

    def __init__(self, num_rows: int, prompt_length: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.prompt_length = prompt_length
        self.obs = np.full((num_rows, prompt_length + T), V)
        self.ends = np.zeros(num_rows, dtype=int)
        self.written = np.zeros(num_rows, dtype=int)
        for row in range(num_rows):
            self.begin(row)

    def begin(self, row: int) -> None:
        self.obs[row] = V
        if self.prompt_length:
            length = self.rng.integers(1, self.prompt_length + 1)
            self.obs[row, self.prompt_length - length : self.prompt_length] = self.rng.integers(0, V, length)
        self.written[row] = 0
        self.ends[row] = self.rng.integers(1, T + 1)

    def step(self, actions: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Write; returns (row, final observation) of those that ended, which have begun anew."""
        self.obs = self.obs.copy()
        rows = np.arange(len(self.obs))
        self.obs[rows, self.prompt_length + self.written] = actions
        self.written += 1
        finished = []
        for row in np.flatnonzero(self.written == self.ends):
            finished.append((int(row), self.obs[row].copy()))
            self.begin(int(row))
        return finished


@pytest.mark.parametrize("prompt_length", [P, 0])
@torch.no_grad()
def test_log_probabilities_as_sampled_equal_those_of_the_full_pass(prompt_length: int) -> None:
    policy, game = make_policy(prompt_length), Game(8, prompt_length)
    logprobs: list[list[float]] = [[] for _ in range(8)]
    checked = 0
    for _ in range(40):
        actions, new = policy.act(game.obs)
        for row in range(8):
            logprobs[row].append(float(new[row]))
        for row, final in game.step(actions):
            length = len(logprobs[row])
            evaluation = policy.evaluate(torch.from_numpy(final)[None], torch.tensor([length]))
            np.testing.assert_allclose(logprobs[row], evaluation.logprobs[0, :length].numpy(), atol=1e-5)
            assert not evaluation.logprobs[0, length:].any()
            logprobs[row] = []
            checked += 1
    assert checked > 50


def test_only_rows_that_do_not_continue_are_read_as_a_whole() -> None:
    policy, game = make_policy(), Game(8, P)
    actions, _ = policy.act(game.obs)
    expected = 8
    assert policy.rollout_decoder.prefilled_rows == expected
    for _ in range(20):
        expected += len(game.step(actions))
        actions, _ = policy.act(game.obs)
        assert policy.rollout_decoder.prefilled_rows == expected
    policy.invalidate_cache()
    game.step(actions)
    policy.act(game.obs)
    assert policy.rollout_decoder.prefilled_rows == expected + 8


@torch.no_grad()
def test_rows_given_in_the_middle_of_an_episode_or_swapped_are_read_anew() -> None:
    policy = make_policy()
    rng = np.random.default_rng(0)
    final = rng.integers(0, V, (4, P + T))
    full = policy.trunk(torch.from_numpy(final)).numpy()
    decoder = IncrementalDecoder(policy.trunk, P)

    def shown(columns: list[int]) -> np.ndarray:
        return np.where(np.arange(P + T) < np.array(columns)[:, None], final, V)

    # begin mid-episode; continue; skip a column; go back; stand still; swap two rows
    for columns in ([3, 5, 8, 4], [4, 6, 3, 5], [6, 7, 4, 3], [6, 8, 5, 3]):
        hidden = decoder(shown(columns)).numpy()
        np.testing.assert_allclose(hidden, full[np.arange(4), columns], atol=1e-5)
    assert decoder.prefilled_rows == 4 + 1 + 2 + 2
    swapped = shown([7, 8, 6, 4])[[1, 0, 2, 3]]
    np.testing.assert_allclose(decoder(swapped).numpy(), full[[1, 0, 2, 3], [8, 7, 6, 4]], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("column", [0, P, P + 1])
def test_a_row_of_the_right_length_but_another_text_is_read_anew(column: int) -> None:
    policy = make_policy()
    decoder = IncrementalDecoder(policy.trunk, P)
    obs = np.random.default_rng(0).integers(0, V, (2, P + T))
    obs[:, P + 2 :] = V
    decoder(obs)
    obs[:, P + 2] = 1
    obs[0, column] = (obs[0, column] + 1) % V
    full = policy.trunk(torch.from_numpy(obs))[:, P + 3]
    torch.testing.assert_close(decoder(obs).clone(), full, atol=1e-5, rtol=0)
    assert decoder.prefilled_rows == 3


@torch.no_grad()
def test_an_exception_leaves_nothing_wrong_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    decoder = IncrementalDecoder(policy.trunk, P)
    obs = np.random.default_rng(0).integers(0, V, (2, P + T))
    obs[:, P + 1 :] = V
    decoder(obs)
    following = obs.copy()
    following[:, P + 1] = 2
    other = following.copy()
    other[0] = obs[0]
    other[0, 0] = (obs[0, 0] + 1) % V  # row 0 is new, row 1 continues
    with monkeypatch.context() as patch:
        patch.setattr(policy.trunk, "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder(other)
    full = policy.trunk(torch.from_numpy(following))[:, P + 2]
    torch.testing.assert_close(decoder(following).clone(), full, atol=1e-5, rtol=0)


@torch.no_grad()
def test_another_number_of_rows_and_finished_rows_are_no_problem() -> None:
    policy = make_policy()
    obs = np.random.default_rng(0).integers(0, V, (3, P + T))
    actions, _ = policy.act(obs)  # nothing left to write: the action will be ignored, but must be one
    assert actions.shape == (3,)
    assert ((actions >= 0) & (actions < V)).all()
    obs[:, P:] = V
    wide, _ = policy.act(np.concatenate([obs, obs]))
    assert wide.shape == (6,)


def test_stale_states_are_used_unless_the_cache_is_invalidated() -> None:
    """The cache cannot see that weights change: that is why updates invalidate it."""
    policy, game = make_policy(), Game(4, P)
    game.ends[:] = T
    actions, _ = policy.act(game.obs, deterministic=True)
    game.step(actions)
    with torch.no_grad():
        policy.trunk.token_embedding.mul_(-1)
        policy.trunk.position_embedding.mul_(0.5)
    stale = policy.rollout_decoder(game.obs)
    policy.invalidate_cache()
    fresh = policy.rollout_decoder(game.obs)
    full = policy.trunk(torch.from_numpy(game.obs))[:, P + 1].detach()
    torch.testing.assert_close(fresh, full, atol=1e-5, rtol=0)
    assert (stale - full).abs().max() > 1e-2


def test_results_are_plain_arrays() -> None:
    policy, game = make_policy(), Game(4, P)
    actions, logprobs = policy.act(game.obs)
    assert (actions.dtype, logprobs.dtype) == (np.int64, np.float32)
    logprobs += 1  # writable, and no inference tensor behind it
    (torch.from_numpy(logprobs) * torch.ones(4, requires_grad=True)).sum().backward()


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_sampling_literal() -> None:
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).expand(7, -1).contiguous()
    uniforms = torch.tensor([[0.0], [0.2499], [0.25], [0.5], [0.7499], [0.75], [1.0]])
    assert sample(probabilities, uniforms).tolist() == [0, 0, 2, 2, 2, 3, 3]


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2_000, 9, generator=generator) * 10
    legal = torch.rand(logits.shape, generator=generator) < 0.4
    legal[torch.arange(2_000), torch.randint(9, (2_000,), generator=generator)] = True
    probabilities = mask_logits(logits, legal).softmax(-1)
    for uniform in (0.0, 1e-8, 0.3, 1 - 2**-24, 1.0):
        drawn = sample(probabilities, torch.full((2_000, 1), uniform))
        assert (probabilities[torch.arange(2_000), drawn] > 0).all()
        assert legal[torch.arange(2_000), drawn].all()


def test_sampling_follows_the_distribution() -> None:
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.05, 0.25]])
    uniforms = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0))
    drawn = sample(probabilities.expand(100_000, -1).contiguous(), uniforms)
    shares = torch.bincount(drawn, minlength=5) / 100_000
    torch.testing.assert_close(shares, probabilities[0], atol=0.005, rtol=0)


def test_deterministic_takes_the_most_probable_legal_token() -> None:
    policy, game = make_policy(), Game(8, P)
    with torch.no_grad():
        logits = policy.policy_head(policy.trunk(torch.from_numpy(game.obs))[:, P])
    best = logits.argmax(-1).numpy()
    assert policy.act(game.obs, deterministic=True)[0].tolist() == best.tolist()
    mask = np.ones((8, V), dtype=np.int8)
    mask[np.arange(8), best] = 0
    second = logits.scatter(1, torch.from_numpy(best)[:, None], -1e9).argmax(-1)
    assert policy.act(game.obs, mask, deterministic=True)[0].tolist() == second.tolist()


# -- masks -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_masks_hold_in_sampling_logprobs_and_entropy() -> None:
    policy = make_policy()
    rng = np.random.default_rng(0)
    obs = np.full((64, P + T), V)
    obs[:, :P] = rng.integers(0, V, (64, P))
    mask = np.zeros((64, V), dtype=np.int8)
    mask[:, [1, 3]] = 1
    actions, logprobs = policy.act(obs, mask)
    assert set(actions.tolist()) == {1, 3}

    rows = obs.copy()
    rows[:, P] = actions
    masks = torch.ones(64, T, V, dtype=torch.bool)
    masks[:, 0] = torch.from_numpy(mask) != 0
    evaluation = policy.evaluate(torch.from_numpy(rows), torch.ones(64, dtype=torch.long), masks)
    np.testing.assert_allclose(evaluation.logprobs[:, 0].numpy(), logprobs, atol=1e-5)
    logits = policy.policy_head(policy.trunk(torch.from_numpy(rows))[:, P])[:, [1, 3]]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(evaluation.entropies[:, 0], expected, atol=1e-5, rtol=0)


def test_gradients_are_finite_with_a_single_legal_action() -> None:
    policy = make_policy()
    rows = torch.zeros(2, P + T, dtype=torch.long)
    masks = torch.zeros(2, T, V, dtype=torch.bool)
    masks[..., 0] = True
    evaluation = policy.evaluate(rows, torch.tensor([T, 2]), masks)
    assert not evaluation.logprobs.any()
    assert not evaluation.entropies.any()
    (evaluation.logprobs.sum() + evaluation.entropies.sum() + evaluation.values.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


# -- evaluation --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_evaluation_is_zero_outside_the_text_and_blind_to_padding() -> None:
    policy = make_policy()
    rng = np.random.default_rng(1)
    rows = torch.from_numpy(rng.integers(0, V, (4, P + T)))
    lengths = torch.tensor([1, 3, 6, 4])
    rows[torch.arange(P + T) >= P + lengths[:, None]] = V
    rows[1, :2] = V
    first = policy.evaluate(rows, lengths)
    outside = torch.arange(T) >= lengths[:, None]
    for x in (first.logprobs, first.entropies, first.values):
        assert not x[outside].any()
        assert x[~outside].all()
    policy.trunk.token_embedding[V] += 5.0
    second = policy.evaluate(rows, lengths)
    for name in ("logprobs", "entropies", "values"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@torch.no_grad()
def test_values_of_the_states_and_of_the_one_after_the_last_token() -> None:
    policy = make_policy()
    rows = torch.from_numpy(np.random.default_rng(1).integers(0, V, (3, P + T)))
    lengths = torch.tensor([2, 5, 6])
    rows[torch.arange(P + T) >= P + lengths[:, None]] = V
    values, after = policy.values(rows, lengths)
    torch.testing.assert_close(values, policy.evaluate(rows, lengths).values)
    every = policy.value_head(policy.trunk(rows))[..., 0]
    torch.testing.assert_close(after, torch.stack([every[0, P + 2], every[1, P + 5], torch.tensor(0.0)]))


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predictions_leave_no_trace_in_rollouts() -> None:
    disturbed, alone = make_policy(), make_policy()
    games = Game(8, P, seed=1), Game(8, P, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(15):
        other = np.full((rng.integers(1, 9), P + T), V)
        other[:, :P] = rng.integers(0, V, (len(other), P))
        disturbed.predict(other, deterministic=False)
        for policy, game in zip((disturbed, alone), games, strict=True):
            game.step(policy.act(game.obs)[0])
        assert np.array_equal(games[0].obs, games[1].obs)
    assert disturbed.rollout_decoder.prefilled_rows == alone.rollout_decoder.prefilled_rows


def test_same_seed_same_texts_and_neighbouring_seeds_share_no_stream() -> None:
    obs = np.full((64, P + T), V)
    obs[:, :P] = 0

    def drawn(seed: int, predict: bool = False) -> list[int]:
        policy = TransformerPolicy(V, P, T, SMALL, seed=seed)
        policy.policy_head.weight.data.zero_()  # uniform: only the stream matters
        return (policy.predict(obs, deterministic=False) if predict else policy.act(obs)[0]).tolist()

    assert drawn(0) == drawn(0)
    streams = [drawn(seed, predict) for seed in range(3) for predict in (False, True)]
    assert len({tuple(stream) for stream in streams}) == 6


def test_no_global_random_state_is_touched() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 (it is the legacy state that must not move)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    policy, game = make_policy(), Game(4, P)
    policy.act(game.obs)
    policy.predict(game.obs, deterministic=False)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
