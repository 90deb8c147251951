"""Incremental decoding: equal to a plain forward pass of each row alone, whatever happens between two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agents.lm import decoding
from agents.lm.decoding import LMDecoder, hooked_forward
from agents.lm.lean import lean_forward

KINDS = ["gpt2", "llama", "qwen2", "neox"]


@torch.no_grad()
def plain_logprobs(model: Any, row: np.ndarray, pad_id: int, length: int) -> np.ndarray:
    """Log-probabilities of the last ``length`` tokens of a row, from one unpadded forward pass of the model itself."""
    ids = torch.from_numpy(row[row != pad_id])[None]
    logits = model(input_ids=ids).logits[0, -length - 1 : -1, :pad_id]
    return logits.log_softmax(-1).gather(1, ids[0, -length:, None])[:, 0].numpy()


def use_hook(policy: Any) -> None:
    """Decode with the model's own code where there is a lean forward pass too."""
    policy._forward = hooked_forward(policy._trunk)
    policy.bind(policy.spec, seed=0)


def play(policy: Any, game: Any, steps: int, between: Callable[[int], None] = lambda step: None) -> list[Any]:
    """(final row, log-probabilities as sampled) of every episode that ended."""
    logprobs: list[list[float]] = [[] for _ in game.obs]
    finished = []
    for step in range(steps):
        between(step)
        actions, new = policy.act(game.obs)
        for row, value in enumerate(new):
            logprobs[row].append(float(value))
        for row, final in game.step(actions):
            finished.append((final, np.array(logprobs[row])))
            logprobs[row] = []
    return finished


@pytest.mark.parametrize(
    ("kind", "path"),
    [(kind, path) for kind in KINDS for path in ("lean", "hooked") if (kind, path) != ("neox", "lean")],
)
def test_cached_padded_and_batched_equals_each_row_alone(
    kind: str, path: str, make_policy: Any, make_model: Any, make_game: Any
) -> None:
    """Through resets at different times, prompts of different lengths, and the slab being moved several times."""
    untouched, policy = make_model(kind), make_policy(kind)
    if path == "hooked":
        use_hook(policy)
    else:
        assert lean_forward(policy._trunk) is not None
    game = make_game(6, policy.spec)
    finished = play(policy, game, 60)
    assert len(finished) > 50
    for final, logprobs in finished:
        length = len(logprobs)
        alone = plain_logprobs(untouched, final, policy.spec.pad_id, length)
        np.testing.assert_allclose(logprobs, alone, atol=1e-4)
        whole = policy.evaluate(torch.from_numpy(final)[None], torch.tensor([length])).logprobs[0, :length]
        np.testing.assert_allclose(logprobs, whole.detach().numpy(), atol=1e-5)


def test_the_columns_are_used_over_and_over_and_nothing_is_read_again_for_it(make_policy: Any, make_game: Any) -> None:
    policy = make_policy()
    game = make_game(4, policy.spec)
    expected = 4
    policy.act(game.obs)
    for _ in range(60):
        expected += len(game.step(policy.predict(game.obs)))
        policy.act(game.obs)
    slab = policy.rollout_decoder._slab
    assert slab.next // slab.context >= 3
    assert {layer.shape[-1] for layer in slab._layers.values()} == {slab.context} == {policy.spec.row_length}
    assert policy.rollout_decoder.prefilled_rows == expected


def test_columns_are_reserved_as_they_are_needed(
    make_policy: Any, make_spec: Any, make_game: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growing in the middle of texts, and a text that begins with more columns than there have been so far."""
    monkeypatch.setattr(decoding, "CACHE_STEP", 5)
    policy = make_policy("gpt2", spec=make_spec(prompt_length=3, max_new_tokens=20))
    spec = policy.spec
    game = make_game(3, spec)
    game.ends[:] = spec.max_new_tokens
    sizes = []
    logprobs = np.zeros((3, 0))
    for step in range(spec.max_new_tokens):
        if step == 4:  # the second row is another one, further on
            game.obs[1, spec.prompt_length :][:12] = np.arange(12) % 10
            game.written[1] = 12
        actions, new = policy.act(game.obs)
        logprobs = np.concatenate([logprobs, new[:, None]], 1)
        sizes.append(policy.rollout_decoder._slab._layers[0].shape[-1])
        for row, final in game.step(actions):
            length = 8 if row == 1 else spec.max_new_tokens
            alone = plain_logprobs(policy.model, final, spec.pad_id, length)
            np.testing.assert_allclose(logprobs[row, -length:], alone, atol=1e-5)
    assert sizes[:4] == [5, 5, 5, 10]
    assert sizes[4] == spec.row_length
    game = make_game(3, spec)
    policy.act(game.obs)
    assert policy.rollout_decoder._slab._layers[0].shape[-1] == 5


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_only_rows_that_were_reset_are_read_as_a_whole(kind: str, make_policy: Any, make_game: Any) -> None:
    policy = make_policy(kind)
    game = make_game(8, policy.spec)
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


@pytest.mark.parametrize("path", ["lean", "hooked"])
def test_weights_that_change_in_the_middle_of_an_episode(path: str, make_policy: Any, make_game: Any) -> None:
    """A fused optimiser bumps no version counter: only ``invalidate_cache`` can tell the decoder."""
    policy = make_policy("gpt2")
    if path == "hooked":
        use_hook(policy)
    game = make_game(5, policy.spec)
    game.ends[:] = policy.spec.max_new_tokens
    for _ in range(3):
        game.step(policy.act(game.obs)[0])
    rows, lengths = torch.from_numpy(game.obs), torch.full((5,), 3)
    policy.evaluate(rows, lengths).logprobs.sum().backward()
    torch.optim.AdamW(policy.parameters(), lr=0.05, fused=True).step()

    stale = policy.rollout_decoder(game.obs)
    policy.invalidate_cache()
    fresh = policy.rollout_decoder(game.obs)
    assert (stale - fresh).abs().max() > 0.1
    assert policy.rollout_decoder.prefilled_rows == 10
    actions, logprobs = policy.act(game.obs)
    final = game.obs.copy()
    final[:, policy.spec.prompt_length + 3] = actions
    for row, logprob in zip(final, logprobs, strict=True):
        np.testing.assert_allclose(logprob, plain_logprobs(policy.model, row, policy.spec.pad_id, 1)[0], atol=1e-5)


@torch.no_grad()
def test_rows_in_the_middle_of_an_episode_swapped_or_standing_still_are_read_anew(
    make_policy: Any,
) -> None:
    policy = make_policy()
    spec = policy.spec
    first, length = spec.prompt_length, spec.row_length
    final = np.random.default_rng(0).integers(0, spec.pad_id, (4, length))
    full = policy._trunk(input_ids=torch.from_numpy(final)).last_hidden_state.numpy()
    decoder = policy.rollout_decoder

    def shown(columns: list[int]) -> np.ndarray:
        return np.where(np.arange(length) < np.array(columns)[:, None], final, spec.pad_id)

    def check(rows: list[int], columns: list[int]) -> None:
        hidden = decoder(shown(columns)[rows]).numpy()
        np.testing.assert_allclose(hidden, full[rows, np.array(columns)[rows] - 1], atol=1e-5)

    same = [0, 1, 2, 3]
    p = first
    # begin mid-episode; continue; skip a column; go back; stand still; swap two rows
    check(same, [p, p + 2, p + 5, p + 1])
    check(same, [p + 1, p + 3, p, p + 2])
    check(same, [p + 3, p + 4, p + 1, p])
    check(same, [p + 3, p + 5, p + 2, p])
    assert decoder.prefilled_rows == 4 + 1 + 2 + 2
    check([1, 0, 2, 3], [p + 4, p + 6, p + 3, p + 1])
    assert decoder.prefilled_rows == 9 + 2


def test_another_number_of_rows_and_finished_rows_are_no_problem(make_policy: Any) -> None:
    for kind in ("gpt2", "llama"):
        policy = make_policy(kind)
        spec = policy.spec
        obs = np.random.default_rng(0).integers(0, spec.pad_id, (3, spec.row_length))
        for _ in range(3):  # nothing left to write: the actions will be ignored, but must be some
            actions, logprobs = policy.act(obs)
            assert ((actions >= 0) & (actions < spec.pad_id)).all()
            assert np.isfinite(logprobs).all()
        obs[:, spec.prompt_length :] = spec.pad_id
        assert policy.act(np.concatenate([obs, obs]))[0].shape == (6,)


def test_a_row_that_becomes_full_stays_within_the_positions_of_the_model(make_policy: Any, make_spec: Any) -> None:
    """Contexts may be as long as the model allows; a full row, whose action is ignored, asks for one token more."""
    policy = make_policy("gpt2", spec=make_spec(prompt_length=10, max_new_tokens=23))  # needs all of its 32 positions
    obs = np.random.default_rng(0).integers(0, 11, (2, 33))
    almost = obs.copy()
    almost[:, -1] = policy.spec.pad_id
    policy.act(almost)
    policy.act(obs)
    policy.act(obs)


def test_an_empty_prompt_needs_a_token_to_begin_with(make_policy: Any) -> None:
    policy = make_policy()
    obs = np.full((2, policy.spec.row_length), policy.spec.pad_id)
    obs[0, policy.spec.prompt_length - 1] = 3
    with pytest.raises(ValueError, match=r"Row 1 has an empty prompt.*bos_token_id="):
        policy.act(obs)
    rows, lengths = torch.from_numpy(obs), torch.tensor([1, 1])
    rows[:, policy.spec.prompt_length] = 2
    with pytest.raises(ValueError, match=r"empty prompt.*bos_token_id="):
        policy.evaluate(rows, lengths)


@pytest.mark.parametrize("path", ["lean", "hooked"])
@pytest.mark.parametrize("prompt_length", [0, 4])
def test_bos_stands_directly_before_the_first_token(
    prompt_length: int, path: str, make_policy: Any, make_spec: Any, make_game: Any, make_model: Any
) -> None:
    bos = 12  # beyond the tokens that can be written
    policy = make_policy("gpt2", spec=make_spec(prompt_length=prompt_length), bos_token_id=bos)
    if path == "hooked":
        use_hook(policy)
    model = make_model("gpt2")
    finished = play(policy, make_game(5, policy.spec, shortest_prompt=0), 40)
    assert len(finished) > 20
    for final, logprobs in finished:
        length = len(logprobs)
        ids = torch.from_numpy(np.concatenate([[bos], final[final != policy.spec.pad_id]]))[None]
        with torch.no_grad():
            every = model(input_ids=ids).logits[0, :, : policy.spec.pad_id].log_softmax(-1)
        alone = every[-length - 1 : -1].gather(1, ids[0, -length:, None])[:, 0]
        np.testing.assert_allclose(logprobs, alone.numpy(), atol=1e-4)
        whole = policy.evaluate(torch.from_numpy(final)[None], torch.tensor([length])).logprobs[0, :length]
        np.testing.assert_allclose(logprobs, whole.detach().numpy(), atol=1e-5)


def test_an_exception_leaves_nothing_wrong_behind(make_policy: Any, make_game: Any) -> None:
    policy = make_policy()
    game = make_game(3, policy.spec)
    game.ends[:] = policy.spec.max_new_tokens
    game.step(policy.act(game.obs)[0])
    decoder: LMDecoder = policy.rollout_decoder
    usual, decoder.forward = decoder.forward, lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        policy.act(game.obs)
    decoder.forward = usual
    hidden = decoder(game.obs)
    assert decoder.prefilled_rows == 6
    rows = torch.from_numpy(game.obs)
    states, _ = policy._states(policy._trunk, rows, torch.full((3,), 2))
    torch.testing.assert_close(hidden, states[:, 1].detach(), atol=1e-5, rtol=0)


def test_the_hook_is_there_during_a_step_of_decoding_and_at_no_other_time(make_policy: Any, make_game: Any) -> None:
    policy = make_policy("neox")
    config = policy.model.config
    usual = config._attn_implementation
    game = make_game(3, policy.spec)
    play(policy, game, 5)
    assert config._attn_implementation == usual == "sdpa"
    ids = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ZeroDivisionError):
        policy._forward(ids, ids, lambda *_: 1 / 0, lambda x: x)
    assert config._attn_implementation == usual


def test_results_are_plain_arrays_and_global_random_state_is_untouched(make_policy: Any, make_game: Any) -> None:
    policy = make_policy()
    game = make_game(4, policy.spec)
    before = torch.get_rng_state()
    actions, logprobs = policy.act(game.obs)
    policy.predict(game.obs, deterministic=False)
    assert torch.equal(before, torch.get_rng_state())
    assert (actions.dtype, logprobs.dtype) == (np.int64, np.float32)
    logprobs += 1  # writable, and no inference tensor behind it
    (torch.from_numpy(logprobs) * torch.ones(4, requires_grad=True)).sum().backward()


def test_generate_is_never_called(make_policy: Any, make_game: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    monkeypatch.setattr(type(policy.model), "generate", lambda *_, **__: pytest.fail("generate was called"))
    play(policy, make_game(3, policy.spec), 10)
