"""What is compared when language models are timed: the same models, lengths and work on both sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from agents.benchmark import gpu_speed, lm_speed
from agents.benchmark.lm_speed import SMOKE, Continuous, Lockstep, Shape
from agents.lm import LMActorCritic

SHAPE = Shape(1, 32, 64)


def test_models_are_the_same_every_time_and_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    one, two = lm_speed.make_model(SHAPE, 10), lm_speed.make_model(SHAPE, 10)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert (one.config.n_layer, one.config.n_embd, one.config.n_head, one.config.vocab_size) == (1, 32, 1, 64)
    assert not one.training


def test_texts_of_one_length() -> None:
    envs = lm_speed.fixed_length_envs(SHAPE, 3, prompt_length=4, new_tokens=5)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (3, 9)
    assert (obs[:, :4] < 64).all()
    policy = LMActorCritic(lm_speed.make_model(SHAPE, 9))
    roll_out = lm_speed.rollouts(policy, envs, 5)
    assert roll_out() == 15
    before = policy.rollout_decoder.prefilled_rows
    assert roll_out() == 15
    assert policy.rollout_decoder.prefilled_rows == before + 3  # as after an update: everything is read anew


def test_generate_samples_from_the_whole_distribution() -> None:
    model = lm_speed.make_model(SHAPE, 9)
    usual, seen = model.generate, []
    model.generate = lambda **arguments: (seen.append(arguments["generation_config"]), usual(**arguments))[1]
    tokens = lm_speed.generation(model, 3, 4, 5)()
    assert tokens.shape == (3, 5)
    (config,) = seen
    assert (config.do_sample, config.top_k, config.max_new_tokens, config.eos_token_id) == (True, 0, 5, None)
    torch.manual_seed(0)
    first = lm_speed.generation(model, 500, 4, 1)()
    assert len(first.unique()) > 55  # of 64: about uniform


@pytest.mark.parametrize(
    ("tokens", "useful"), [([[5, 6, 7]], 3), ([[0, 6, 7]], 1), ([[5, 1, 0]], 2), ([[5, 6, 1], [5, 0, 9]], 5)]
)
def test_tokens_count_up_to_the_first_eos(tokens: list[list[int]], useful: int) -> None:
    assert lm_speed.count(lambda: torch.tensor(tokens), (0, 1)) == useful
    assert lm_speed.count(lambda: torch.tensor(tokens)) == 3 * len(tokens)


def test_lengths_have_about_the_mean_that_is_asked_for() -> None:
    assert lm_speed.eos_ids(256, 15) == tuple(range(17))
    assert lm_speed.eos_ids(10, 100) == (0,)
    preset = lm_speed.LMPreset(**{**vars(SMOKE), "new_tokens": 24, "mean_length": 4})
    continuous = Continuous(SHAPE, 16, preset, lm_speed.eos_ids(64, 4))
    rollouts = [continuous.collector.collect(50) for _ in range(2)]
    lengths = np.concatenate([each.lengths for each in rollouts])
    assert 3.0 < lengths.mean() < 5.0
    assert lengths.max() > 10


def test_continuous_rollouts_read_only_rows_that_begin_and_say_so_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    continuous = Continuous(SHAPE, 8, SMOKE, lm_speed.eos_ids(64, 3))
    for _ in range(3):
        assert continuous() == 8 * SMOKE.new_tokens  # a useful token in every row and step
    decoder = continuous.policy.rollout_decoder
    usual = decoder._new_rows
    monkeypatch.setattr(decoder, "_new_rows", lambda *arguments: usual(*arguments) | (np.arange(8) == 0))
    with pytest.raises(RuntimeError, match=r"\d+ rows were read as a whole, \d+ had begun anew"):
        continuous()


def test_lockstep_counts_tokens_up_to_eos_and_waits_for_the_longest_text() -> None:
    lockstep = Lockstep(SHAPE, 4, SMOKE, (0,))
    scripted = iter(np.array([[0, 5, 5, 5], [5, 0, 5, 5], [5, 5, 0, 5], [0, 0, 0, 0], [5, 5, 5, 5]]))
    lockstep.policy.act_with_values = lambda obs: (next(scripted), None, None)
    assert lockstep() == 4 + 3 + 2 + 1
    assert next(scripted).tolist() == [5, 5, 5, 5]  # the fifth step was not played


def test_the_same_reward_for_both_sides() -> None:
    assert lm_speed.share_of_different(completion_ids=[[1, 2, 3, 3], [7]], prompts=["a", "b"]) == [0.75, 1.0]


def test_the_table_for_an_accelerator(tmp_path: Any) -> None:
    rows = [
        gpu_speed.Row("rollout", 1500.0, 1400.0, 1600.0, 3 * 2**30),
        gpu_speed.Row("`generate` of transformers", 1000.0, 900.0, 1100.0, None),
    ]
    head, _, *lines = gpu_speed.table(gpu_speed.SMOKE, "cpu", rows)
    assert "no accelerator" in head
    assert "8 prompts of 4 tokens, 6 new tokens each" in head
    assert lines[2:] == [
        "| rollout | 1,500 (1,400–1,600) | 1.50 | 3.0 GiB |",
        "| `generate` of transformers | 1,000 (900–1,100) | 1.00 | not measured |",
    ]


def test_what_is_measured_on_an_accelerator_in_small() -> None:
    preset = gpu_speed.GPUPreset(**{**vars(gpu_speed.ON_A_PROCESSOR), "rounds": 1})
    rows = gpu_speed.measure(preset, "cpu")
    assert [row.what.split(" ")[0] for row in rows] == ["rollout,", "`generate`", "PPO:"]
    for row in rows:
        assert 0 < row.slowest == row.tokens_per_second == row.fastest
        assert row.peak_bytes is None
