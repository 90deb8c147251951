"""What all replay agents must do: acting, learning, determinism, resuming, demonstrations, masks, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from agents import DQN, CheckpointError, DiscreteSAC, ReturnDecomposition, SoftQ
from agents.demonstrations import oracle_episodes
from agents.off_policy import OffPolicyAgent, ReplayLearner
from textenvs import Task, TextEnv, TextVectorEnv

VARYING = {"length": 4, "num_symbols": 3, "min_length": 1}
SMALL = {
    "num_envs": 8,
    "batch_size": 8,
    "learning_starts": 8,
    "updates_per_window": 2,
    "width": 16,
    "num_heads": 2,
}
KINDS: list[type[OffPolicyAgent]] = [DiscreteSAC, ReturnDecomposition, SoftQ]
SWITCHES: list[tuple[type[OffPolicyAgent], dict[str, Any]]] = [
    (DiscreteSAC, {}),
    (DiscreteSAC, {"lower_bound": False, "deduplicate": True, "score_share": 0.25, "recent_share": 0.25}),
    (ReturnDecomposition, {}),
    (ReturnDecomposition, {"continuation_coef": 0.0, "recent_share": 0.0}),
    (SoftQ, {}),
    (SoftQ, {"path_consistency": False, "lower_bound": False}),
    (SoftQ, {"bellman": False, "rare_share": 0.25}),
]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_switch = pytest.mark.parametrize(("kind", "switches"), SWITCHES)


def make(kind: type[OffPolicyAgent], seed: int = 0, **more: Any) -> OffPolicyAgent:
    return kind("textenvs/Copy-v0", seed=seed, env_kwargs=VARYING, **(SMALL | more))


def bits(agent: OffPolicyAgent) -> list[bytes]:
    modules = [agent.network, *([agent.target_network] if hasattr(agent, "target_network") else [])]
    return [p.detach().numpy().tobytes() for module in modules for p in module.parameters()]


def state_bits(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: state_bits(value) for name, value in tree.items()}
    if isinstance(tree, torch.Tensor):
        return tree.detach().numpy().tobytes()
    return tree.tobytes() if isinstance(tree, np.ndarray) else tree


# -- acting ------------------------------------------------------------------------------------------------------------


@every_kind
def test_logged_probabilities_are_those_of_the_behaviour(kind: type[OffPolicyAgent]) -> None:
    agent = make(kind).learn(100)
    obs, _ = agent.envs.reset(seed=0)
    agent._invalidate_caches()
    drawn = np.array([agent._act(obs, None) for _ in range(2_000)])
    actions, logprobs = drawn[:, 0].astype(int), drawn[:, 1]
    for i in range(2):
        for token in range(agent.text_spec.num_tokens):
            chosen = actions[:, i] == token
            if chosen.any():
                said = np.exp(logprobs[chosen, i])
                assert said.max() - said.min() < 1e-6
                assert abs(chosen.mean() - said[0]) < 0.05


@every_kind
def test_predict_does_not_touch_training(kind: type[OffPolicyAgent]) -> None:
    agent, other = make(kind).learn(200), make(kind).learn(200)
    obs, _ = agent.envs.reset(seed=3)
    first = agent.predict(obs)[0]
    for deterministic in (True, False, False):
        agent.predict(obs, deterministic=deterministic)
    np.testing.assert_array_equal(first, agent.predict(obs)[0])
    np.testing.assert_array_equal(first[2], agent.predict(obs[2])[0])
    other.envs.reset(seed=3)
    for each in (agent, other):
        each.collector.drop()
        each.learn(200)
    assert bits(agent) == bits(other)


@every_kind
def test_what_is_played_follows_the_weights_after_an_update(kind: type[OffPolicyAgent]) -> None:
    """The cache is dropped: what act uses is what a full pass gives."""
    agent = make(kind, learning_rate=0.01)
    for _ in range(4):
        agent.learn(30)
        obs = agent.collector.get_state()["obs"]
        with torch.no_grad():
            full = agent.network.trunk(torch.from_numpy(obs))
        expected = full[np.arange(len(obs)), 4 + (obs[:, 4:] != 4).sum(1)]
        for decoder in (agent.rollout_decoder, agent.predict_decoder):
            torch.testing.assert_close(decoder(obs), expected, atol=1e-5, rtol=1e-5)


@every_kind
def test_illegal_actions_are_never_played_nor_learnt_from(kind: type[OffPolicyAgent], masked_task: Task) -> None:
    agent = kind(TextVectorEnv(masked_task, 8, invalid_reward=-1.0), **SMALL)
    agent.learn(1_500)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    assert agent.replay.scores.min() >= 0
    assert agent.metrics["charts/episodic_return"] > 0.38  # optimum 0.5, random 0.33
    obs, _ = agent.envs.reset(seed=0)
    for deterministic in (True, False):
        for legal in range(3):
            only = np.zeros((8, 3), dtype=np.int8)
            only[:, legal] = 1
            assert (agent.predict(obs, action_mask=only, deterministic=deterministic)[0] == legal).all()


@every_switch
def test_masks_enter_the_loss(kind: type[OffPolicyAgent], switches: dict[str, Any], masked_task: Task) -> None:
    """Raising the outputs of an action that is illegal everywhere changes no gradient but its own."""
    agent = kind(TextVectorEnv(masked_task, 8, invalid_reward=-1.0), **(SMALL | switches))
    agent.learn(100)
    batch = agent._sample_batch()
    assert batch.action_masks is not None
    unused = 1
    masks = batch.action_masks.clone()
    masks[..., unused] = False
    masks[..., 0] = masks[..., 2] = True
    written = torch.where(batch.actions == unused, 0, batch.actions)
    batch = dataclasses.replace(batch, action_masks=masks, actions=written)
    gradients = []
    for raised in (0.0, 50.0):
        heads = [m for n in (agent.network, getattr(agent, "target_network", agent.network)) for m in n.heads.values()]
        with torch.no_grad():
            for head in {id(h): h for h in heads}.values():
                if head.out_features == 3:
                    head.bias[unused] += raised
        agent.gradient.zero_()
        agent._loss(batch)[0].backward()
        gradients.append(agent.gradient.clone())
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


# -- learning ----------------------------------------------------------------------------------------------------------


@every_switch
def test_what_stands_behind_a_text_does_not_change_the_update(
    kind: type[OffPolicyAgent], switches: dict[str, Any]
) -> None:
    clean, dirty = make(kind, **switches).learn(300), make(kind, **switches).learn(300)
    batch = clean.replay.sample(8, np.random.default_rng(0))
    assert len(set(batch.lengths)) > 1
    rows = batch.rows.copy()
    behind = np.arange(5) >= batch.lengths[:, None]
    assert (rows[:, 4:][behind] == 4).all()
    rows[:, 4:][behind] = np.random.default_rng(1).integers(4, size=behind.sum())
    for agent, each in ((clean, batch), (dirty, dataclasses.replace(batch, rows=rows))):
        agent.replay.sample = lambda *_, each=each, **__: each  # type: ignore[method-assign]
        agent._update()
    torch.testing.assert_close(clean.gradient, dirty.gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(clean.parameters, dirty.parameters, atol=1e-5, rtol=1e-4)
    assert clean.gradient_samples == dirty.gradient_samples


@pytest.mark.parametrize("kind", [DiscreteSAC, SoftQ])
def test_no_gradient_goes_into_targets_and_they_follow(kind: type[DiscreteSAC] | type[SoftQ]) -> None:
    agent = make(kind, target_tau=0.25)
    assert isinstance(agent, DiscreteSAC | SoftQ)
    agent.learn(100)
    for parameter in agent.target_network.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None or not parameter.grad.any()
    before = [p.clone() for p in agent.target_network.parameters()]
    agent._update()
    for old, online, new in zip(before, agent.network.parameters(), agent.target_network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * online)


@every_switch
def test_every_trainable_parameter_changes(kind: type[OffPolicyAgent], switches: dict[str, Any]) -> None:
    trained, fresh = make(kind, **switches).learn(200), make(kind, **switches)
    named = dict(fresh.network.named_parameters())
    for name, parameter in trained.network.named_parameters():
        assert not torch.equal(parameter, named[name]), name


@every_kind
def test_counters_and_logged_keys(kind: type[OffPolicyAgent]) -> None:
    agent = make(kind, updates_per_window=3, learning_starts=16)
    seen: list[dict[str, float]] = []
    agent.learn(400, callback=lambda a: seen.append(a.metrics))
    first = agent.loss_names[0]
    learnt = [m for m in seen if not np.isnan(m[first])]
    assert np.isnan(seen[0][first])  # fewer than learning_starts
    assert agent.num_updates == len(learnt)
    assert agent.num_gradient_steps == 3 * len(learnt)
    assert 3 * 8 * len(learnt) < agent.gradient_samples < 3 * 8 * 5 * len(learnt)
    assert all(m.keys() == seen[0].keys() for m in seen)
    assert seen[0].keys() >= {*agent.loss_names, "charts/SPS", "charts/replay_episodes"}
    assert all(np.isfinite(m[name]) for m in learnt for name in agent.loss_names)
    assert agent.metrics["charts/replay_episodes"] == agent.num_episodes == len(agent.replay)


@every_kind
def test_texts_cut_off_by_a_time_limit_are_not_learnt_from(kind: type[OffPolicyAgent]) -> None:
    envs = SyncVectorEnv(
        [lambda: TimeLimit(TextEnv("Copy", length=4, num_symbols=3), 3)] * 8, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent = kind(envs, **SMALL).learn(100)
    assert agent.num_episodes > 20
    assert len(agent.replay) == agent.num_updates == 0


# -- the same bits -----------------------------------------------------------------------------------------------------


@every_switch
def test_same_seed_same_bits(kind: type[OffPolicyAgent], switches: dict[str, Any]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (make(kind, seed, **switches).learn(150) for seed in (4, 4, 5))
    assert bits(first) == bits(second) != bits(other)
    assert torch.equal(before[0], torch.get_rng_state())  # global random state is nobody's business
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@every_switch
def test_save_load_continue_is_never_having_stopped(
    kind: type[OffPolicyAgent], switches: dict[str, Any], tmp_path: Path
) -> None:
    through = make(kind, **switches, capacity=60)
    through.learn(150)
    through.save(tmp_path / "agent")
    resumed = kind.load(tmp_path / "agent")
    assert state_bits(resumed._get_state()) == state_bits(through._get_state())
    for agent in (through, resumed):
        agent.learn(150)
    assert state_bits(resumed._get_state()) == state_bits(through._get_state())
    for counter in ("num_timesteps", "num_episodes", "num_updates", "gradient_samples", "num_gradient_steps"):
        assert getattr(through, counter) == getattr(resumed, counter)
    obs, _ = through.envs.reset(seed=1)
    sampled = [agent.predict(obs, deterministic=False)[0] for agent in (through, resumed)]
    np.testing.assert_array_equal(*sampled)


@every_kind
def test_an_agent_that_has_not_learnt_can_be_saved(kind: type[OffPolicyAgent], tmp_path: Path) -> None:
    agent = make(kind)
    agent.save(tmp_path / "agent")
    resumed = kind.load(tmp_path / "agent")
    assert bits(resumed.learn(200)) == bits(agent.learn(200))


@every_kind
def test_checkpoints_of_other_agents_are_refused(kind: type[OffPolicyAgent], tmp_path: Path) -> None:
    make(kind).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match=f"checkpoint of {kind.__name__}, not of DQN"):
        DQN.load(tmp_path / "agent")


# -- demonstrations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, DQN])
def test_learning_offline_from_demonstrations_plays_nothing(kind: type[ReplayLearner]) -> None:
    agent = kind("textenvs/Copy-v0", env_kwargs=VARYING, **SMALL)
    with pytest.raises(ValueError, match=r"holds 0 episodes; a batch needs 8. Add demonstrations"):
        agent.learn_offline(3)
    task = agent.envs.unwrapped.task  # type: ignore[attr-defined]
    agent.replay.add_episodes(oracle_episodes(task, 20, seed=0), task=task)
    metrics = agent.learn_offline(3)
    assert metrics.keys() == set(agent.loss_names)
    assert all(np.isfinite(list(metrics.values())))
    assert (agent.num_timesteps, agent.num_episodes, agent.num_gradient_steps) == (0, 0, 3)
    agent.learn(100)  # … and then mixed with its own
    assert set(agent.replay.sources) == {"demonstrations", "agent"}
    with pytest.raises(ValueError, match="num_updates must be at least 1; got 0"):
        agent.learn_offline(0)


# -- bad input ---------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"capacity": 7}, "capacity=7 episodes never holds the 8 that batch_size=8"),
        ({"capacity": 20, "learning_starts": 30}, "never holds the 30"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"num_steps": 0}, "num_steps must be None or at least 1; got 0"),
        ({"recent_share": 1.5}, "recent_share must be between 0 and 1; got 1.5"),
        ({"recent_share": 0.75, "rare_share": 0.5}, r"parts of one minibatch; they add up to 1\.25"),
        ({"priority_cap": 0.5}, "priority_cap must be None or at least 1; got 0.5"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"width": 10, "num_heads": 4}, "width must be a multiple of num_heads"),
    ],
)
def test_config_values_out_of_range(kind: type[OffPolicyAgent], config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, **config)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (DiscreteSAC, {"entropy_share": 1.5}, "entropy_share must be between 0 and 1; got 1.5"),
        (DiscreteSAC, {"initial_alpha": 0.0}, "initial_alpha must be positive"),
        (DiscreteSAC, {"alpha_learning_rate": -1.0}, "alpha_learning_rate must not be negative"),
        (DiscreteSAC, {"target_tau": 0.0}, "target_tau must be above 0 and at most 1; got 0.0"),
        (SoftQ, {"target_tau": 2.0}, "target_tau must be above 0 and at most 1; got 2.0"),
        (SoftQ, {"tau": 0.0}, "tau must be positive"),
        (SoftQ, {"bellman": False, "path_consistency": False}, "nothing to learn from"),
    ],
)
def test_own_config_values_out_of_range(kind: type[OffPolicyAgent], config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kind, **config)


@every_kind
def test_unknown_config_key(kind: type[OffPolicyAgent]) -> None:
    with pytest.raises(TypeError, match=r"Unknown config key 'batchsize'\. Did you mean 'batch_size'\?"):
        make(kind, batchsize=3)
