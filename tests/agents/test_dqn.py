"""DQN: exploration, targets of the agent, what moves and what does not, determinism, resuming, bad input."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from agents import DQN, PPO, CheckpointError
from agents.dqn import QNetwork, exploration_probabilities
from agents.networks import TransformerConfig
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


def make(seed: int = 0, **more: Any) -> DQN:
    return DQN("textenvs/Copy-v0", seed=seed, env_kwargs=VARYING, **(SMALL | more))


def bits(agent: DQN) -> list[bytes]:
    modules = (agent.network, agent.target_network)
    return [p.detach().numpy().tobytes() for module in modules for p in module.parameters()]


# -- acting ------------------------------------------------------------------------------------------------------------


def test_exploration_probabilities_literal() -> None:
    q_values = torch.tensor([[0.0, 3.0, 0.0], [5.0, 5.0, 1.0]])
    epsilon = torch.tensor([0.0, 0.3])
    unit = 3 / math.log(3)  # at this temperature a difference of 3 is odds of 3 : 1
    boltzmann = exploration_probabilities(q_values, unit, torch.zeros(2))
    torch.testing.assert_close(boltzmann[0], torch.tensor([0.2, 0.6, 0.2]))
    cold = exploration_probabilities(q_values, unit / 2, torch.zeros(2))  # odds squared
    torch.testing.assert_close(cold[0], torch.tensor([1.0, 9.0, 1.0]) / 11)
    greedy = exploration_probabilities(q_values, 0.0, epsilon)
    torch.testing.assert_close(greedy, torch.tensor([[0.0, 1.0, 0.0], [0.8, 0.1, 0.1]]))  # the first of equals
    mixed = exploration_probabilities(q_values, unit, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(mixed[0], torch.tensor([0.1, 0.3, 0.1]) + 0.5 / 3)


def test_illegal_actions_are_never_explored() -> None:
    q_values = torch.tensor([[9.0, 1.0, 1.0], [-3.0, -2.0, -1.0]])
    masks = torch.tensor([[False, True, True], [True, False, False]])
    for temperature in (0.0, 0.1, 1.0):
        probabilities = exploration_probabilities(q_values, temperature, torch.tensor([0.5, 0.5]), masks)
        assert not probabilities[~masks].any()
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    assert probabilities[0].tolist() == [0, 0.5, 0.5]
    assert probabilities[1].tolist() == [1, 0, 0]


def test_epsilon_falls_linearly_over_episodes() -> None:
    agent = make(epsilon_start=1.0, epsilon=0.2, epsilon_decay=100)
    epsilons = []
    for episodes in (0, 50, 100, 1000):
        agent.num_episodes = episodes
        epsilons.append(agent.epsilon)
    assert epsilons == pytest.approx([1.0, 0.6, 0.2, 0.2])
    constant = make(epsilon=0.3)
    assert constant.epsilon == 0.3


def test_epsilon_spreads_over_sub_environments() -> None:
    """Ape-X: ε^(1 + 7 i / (N − 1))."""
    agent = make(num_envs=3, epsilon=0.5, epsilon_spread=7.0, temperature=0.0)
    assert agent._epsilon_exponents.tolist() == [1, 4.5, 8]
    agent.collector.reset(0)
    obs, _ = agent.envs.reset(seed=0)
    greedy = agent.predict(obs)[0]
    actions = np.array([agent._act(obs, None)[0] for _ in range(500)])
    explored = (actions != greedy).mean(0)
    np.testing.assert_allclose(explored, 0.75 * 0.5 ** np.array([1, 4.5, 8]), atol=0.06)  # V = 4


def test_logged_probabilities_are_those_of_the_behaviour() -> None:
    agent = make(epsilon=0.3, temperature=0.0)
    obs, _ = agent.envs.reset(seed=0)
    greedy = agent.predict(obs)[0]
    actions, logprobs = agent._act(obs, None)
    np.testing.assert_allclose(np.exp(logprobs), np.where(actions == greedy, 0.7 + 0.3 / 4, 0.3 / 4), rtol=1e-5)


def test_predict_does_not_touch_training() -> None:
    agent, other = make().learn(200), make().learn(200)
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


def test_predicted_q_follows_the_weights_after_an_update() -> None:
    """The cache is dropped: what act uses is what a full pass gives."""
    agent = make(learning_rate=0.01, temperature=0.0)
    for _ in range(5):
        agent.learn(30)
        obs = agent.collector.get_state()["obs"]
        with torch.no_grad():
            full = agent.network.trunk(torch.from_numpy(obs))
        expected = full[np.arange(len(obs)), 4 + (obs[:, 4:] != 4).sum(1)]
        for decoder in (agent.rollout_decoder, agent.predict_decoder):
            torch.testing.assert_close(decoder(obs), expected, atol=1e-5, rtol=1e-5)


# -- the network -------------------------------------------------------------------------------------------------------


def test_dueling_heads() -> None:
    network = QNetwork(5, 2, 3, TransformerConfig(1, 8, 2), torch.Generator().manual_seed(0), dueling=True)
    assert network.value_head is not None
    with torch.no_grad():
        network.value_head.weight.fill_(0.0)
        network.value_head.bias.fill_(3.0)
    q_values = network(torch.randint(5, (4, 5)))
    assert q_values.shape == (4, 3, 5)
    torch.testing.assert_close(q_values.mean(-1), torch.full((4, 3), 3.0))  # advantages have mean 0
    assert q_values.std() > 0


def test_q_of_a_step_has_seen_nothing_later() -> None:
    network = QNetwork(5, 2, 3, TransformerConfig(2, 8, 2), torch.Generator().manual_seed(0))
    rows = torch.tensor([[1, 2, 3, 4, 0]])
    changed = torch.tensor([[1, 2, 3, 0, 1]])
    first, second = network(rows)[0], network(changed)[0]
    torch.testing.assert_close(first[:2], second[:2])
    assert (first[2] - second[2]).abs().max() > 1e-6


# -- learning ----------------------------------------------------------------------------------------------------------


def targets_of(agent: DQN, **q: torch.Tensor) -> list[list[float]]:
    """Two episodes of scores 6 and 8; of three steps, and of one. Two actions."""
    return agent._targets(
        scores=torch.tensor([6.0, 8.0]),
        lengths=torch.tensor([3, 1]),
        actions=torch.tensor([[0, 1, 0], [1, 0, 0]]),
        q_values=torch.tensor([[[1.0, 2], [3, 4], [6, 5]], [[1, 1], [9, 9], [9, 9]]]),
        q_target=torch.tensor([[[7.0, 7], [5, 3], [2, 9]], [[7, 7], [9, 9], [9, 9]]]),
        action_masks=q.get("action_masks"),
    ).tolist()


def test_targets_literal() -> None:
    plain = {"lower_bound": False, "n_step": 1}
    # Online prefers action 1, then 0; the target network says 3 and 2. Without double: its own maxima 5 and 9.
    assert targets_of(make(**plain)) == [[3, 2, 6], [8, 0, 0]]
    assert targets_of(make(**plain, double=False)) == [[5, 9, 6], [8, 0, 0]]
    assert targets_of(make(**plain, gamma=0.5)) == [[1.5, 1, 6], [8, 0, 0]]
    assert targets_of(make(lower_bound=False, n_step=2)) == [[2, 6, 6], [8, 0, 0]]
    assert targets_of(make(lower_bound=False, n_step=3)) == [[6, 6, 6], [8, 0, 0]]
    # Actions 1 and 2 are greedy, so the traces run to the end; with λ = 1/2: 6, (2 + 6) / 2, (3 + 4) / 2.
    assert targets_of(make(lower_bound=False, lambda_=1.0)) == [[6, 6, 6], [8, 0, 0]]
    assert targets_of(make(lower_bound=False, lambda_=0.5)) == [[3.5, 4, 6], [8, 0, 0]]
    assert targets_of(make(lower_bound=True, lambda_=0.5)) == [[6, 6, 6], [8, 0, 0]]
    assert targets_of(make(lower_bound=True, n_step=1, double=False)) == [[6, 9, 6], [8, 0, 0]]


def test_traces_are_cut_at_actions_that_are_not_greedy() -> None:
    agent, peng = make(lower_bound=False, lambda_=1.0), make(lower_bound=False, lambda_=1.0, cut_traces=False)
    masks = torch.ones(2, 3, 2, dtype=torch.bool)
    assert targets_of(agent, action_masks=masks) == [[6, 6, 6], [8, 0, 0]]
    q_values = torch.tensor([[[1.0, 2], [4, 3], [6, 5]]])  # now action 1 is exploratory
    arguments = (torch.tensor([6.0]), torch.tensor([3]), torch.tensor([[0, 1, 0]]), q_values, q_values + 10, None)
    assert agent._targets(*arguments).tolist() == [[14, 6, 6]]
    assert peng._targets(*arguments).tolist() == [[6, 6, 6]]


def test_illegal_actions_enter_no_maximum() -> None:
    masks = torch.ones(2, 3, 2, dtype=torch.bool)
    masks[0, 1, 1] = masks[0, 2, 0] = False
    assert targets_of(make(lower_bound=False, n_step=1), action_masks=masks) == [[5, 9, 6], [8, 0, 0]]


def test_only_the_online_network_gets_gradients() -> None:
    agent = make(target_interval=10_000).learn(200)
    for parameter in (*agent.target_network.parameters(), agent.target_parameters):
        assert not parameter.requires_grad or parameter is agent.target_parameters
        assert parameter.grad is None or not parameter.grad.any()
    assert agent.gradient.any()
    fresh = make()
    assert bits(agent)[len(bits(agent)) // 2 :] == bits(fresh)[len(bits(fresh)) // 2 :]  # targets: never updated
    for trained, initial in zip(agent.network.parameters(), fresh.network.parameters(), strict=True):
        assert not torch.equal(trained, initial)


def test_target_network_arithmetic() -> None:
    agent = make(target_tau=0.25, target_interval=3, updates_per_window=1)
    agent.learn(100)
    while agent.num_gradient_steps % 3 != 2:
        agent._update()
    before = [p.clone() for p in agent.target_network.parameters()]
    agent._update()
    pairs = zip(before, agent.network.parameters(), agent.target_network.parameters(), strict=True)
    for old, online, new in pairs:
        torch.testing.assert_close(new, 0.75 * old + 0.25 * online)
    after = [p.clone() for p in agent.target_network.parameters()]
    agent._update()
    for old, new in zip(after, agent.target_network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_full_target_update_copies() -> None:
    agent = make(target_tau=1.0, target_interval=1).learn(100)
    for online, target in zip(agent.network.parameters(), agent.target_network.parameters(), strict=True):
        assert torch.equal(online, target)


def test_a_target_network_that_is_always_copied_need_not_be_asked() -> None:
    short, long = (make(target_tau=1.0, target_interval=1) for _ in range(2))
    long._targets_are_online = False
    assert short._targets_are_online
    assert bits(short.learn(150)) == bits(long.learn(150))


def test_what_stands_behind_a_text_does_not_change_the_update() -> None:
    clean, dirty = make().learn(300), make().learn(300)
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


def test_counters_and_logged_keys() -> None:
    agent = make(updates_per_window=3, learning_starts=16)
    seen: list[dict[str, float]] = []
    agent.learn(400, callback=lambda a: seen.append(a.metrics))
    learnt = [m for m in seen if not np.isnan(m["losses/td_loss"])]
    assert np.isnan(seen[0]["losses/td_loss"])  # fewer than learning_starts
    assert agent.num_updates == len(learnt)
    assert agent.num_gradient_steps == 3 * len(learnt)
    # Between one and five tokens an episode.
    assert 3 * 8 * len(learnt) < agent.gradient_samples < 3 * 8 * 5 * len(learnt)
    assert agent.data_utilisation == agent.gradient_samples / agent.num_timesteps
    assert all(m.keys() == seen[0].keys() for m in seen)
    assert seen[0].keys() >= {"losses/td_loss", "losses/q_values", "charts/epsilon", "charts/SPS"}
    assert agent.metrics["charts/replay_episodes"] == agent.num_episodes == len(agent.replay)


def test_q_values_are_logged_in_units_of_the_reward() -> None:
    uniform = SMALL | {"temperature": 9.0, "learning_rate": 0.01}
    agent = DQN("textenvs/HiddenTarget-v0", env_kwargs={"length": 1, "num_symbols": 2}, **uniform)
    agent.learn(500)  # one token, uniformly drawn: score 0 or 1
    assert 0.25 < agent.metrics["losses/q_values"] < 0.75


def test_masks_enter_acting_and_learning(masked_task: Task) -> None:
    agent = DQN(TextVectorEnv(masked_task, 8, invalid_reward=-1.0), **SMALL)
    agent.learn(1_500)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    assert agent.replay.scores.min() >= 0
    assert agent.metrics["charts/episodic_return"] > 0.4  # optimum 0.5, random 0.33
    batch = agent.replay.sample(8, np.random.default_rng(0))
    assert batch.action_masks is not None
    assert batch.action_masks.any(-1).all()


def test_texts_cut_off_by_a_time_limit_are_not_learnt_from() -> None:
    envs = SyncVectorEnv(
        [lambda: TimeLimit(TextEnv("Copy", length=4, num_symbols=3), 3)] * 8, autoreset_mode=AutoresetMode.SAME_STEP
    )
    agent = DQN(envs, **SMALL).learn(100)
    assert agent.num_episodes > 20
    assert len(agent.replay) == agent.num_updates == 0


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_autoreset_mode(mode: AutoresetMode) -> None:
    agent = DQN(TextVectorEnv("Copy", 8, autoreset_mode=mode, **VARYING), **SMALL).learn(300)
    assert agent.num_updates > 0
    scores = agent.replay.scores
    assert ((scores >= 0) & (scores <= 1)).all()


SWITCHES: list[dict[str, Any]] = [
    {},
    {"n_step": 1, "double": False},
    {"dueling": True, "lambda_": 0.5, "cut_traces": False, "lower_bound": False},
    {"priority_alpha": 0.6, "epsilon": 0.1, "epsilon_spread": 7.0, "loss": "huber", "temperature": 0.0},
]


@pytest.mark.parametrize("switches", SWITCHES)
def test_same_seed_same_bits(switches: dict[str, Any]) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (make(seed, **switches).learn(150) for seed in (4, 4, 5))
    assert bits(first) == bits(second) != bits(other)
    assert torch.equal(before[0], torch.get_rng_state())  # global random state is nobody's business
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("switches", SWITCHES)
def test_save_load_continue_is_never_having_stopped(switches: dict[str, Any], tmp_path: Path) -> None:
    through = make(**switches, target_interval=3, capacity=60)
    through.learn(150)
    through.save(tmp_path / "agent")
    resumed = DQN.load(tmp_path / "agent")
    assert bits(resumed) == bits(through)
    for agent in (through, resumed):
        agent.learn(150)
    assert bits(resumed) == bits(through)
    for name, values in through.replay.get_state().items():
        np.testing.assert_array_equal(values, resumed.replay.get_state()[name])
    for counter in ("num_timesteps", "num_episodes", "num_updates", "gradient_samples", "num_gradient_steps"):
        assert getattr(through, counter) == getattr(resumed, counter)
    obs, _ = through.envs.reset(seed=1)
    sampled = [agent.predict(obs, deterministic=False)[0] for agent in (through, resumed)]
    np.testing.assert_array_equal(*sampled)


def test_an_agent_that_has_not_learnt_can_be_saved(tmp_path: Path) -> None:
    agent = make()
    agent.save(tmp_path / "agent")
    resumed = DQN.load(tmp_path / "agent")
    assert bits(resumed.learn(200)) == bits(agent.learn(200))


def test_checkpoints_of_other_agents_are_refused(tmp_path: Path) -> None:
    make().save(tmp_path / "dqn")
    with pytest.raises(CheckpointError, match="checkpoint of DQN, not of PPO"):
        PPO.load(tmp_path / "dqn")


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"capacity": 7}, "capacity=7 episodes never holds the 8 that batch_size=8"),
        ({"capacity": 20, "learning_starts": 30}, "never holds the 30"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"n_step": 0}, "n_step must be None or at least 1; got 0"),
        ({"lambda_": 1.5}, "lambda_ must be between 0 and 1; got 1.5"),
        ({"epsilon": -0.1}, "epsilon must be between 0 and 1; got -0.1"),
        ({"epsilon_start": 2.0}, "epsilon_start must be None or between 0 and 1; got 2.0"),
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"target_tau": 0.0}, "target_tau must be above 0 and at most 1; got 0.0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"loss": "l2"}, "loss must be 'huber' or 'mse'; got 'l2'"),
        ({"width": 10, "num_heads": 4}, "width must be a multiple of num_heads"),
    ],
)
def test_config_values_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


def test_unknown_config_key() -> None:
    with pytest.raises(TypeError, match=r"Unknown config key 'batchsize'\. Did you mean 'batch_size'\?.*capacity"):
        make(batchsize=3)


def test_rewards_before_the_end_are_refused_and_the_agent_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make()
    step = agent.envs.step

    def shaped(actions: np.ndarray) -> Any:
        obs, rewards, *rest = step(actions)
        return obs, rewards + 0.5, *rest

    monkeypatch.setattr(agent.envs, "step", shaped)
    with pytest.raises(ValueError, match="keeps one score for each, the reward of the last step"):
        agent.learn(200)
    monkeypatch.undo()
    assert len(agent.learn(100).replay) > 0


def test_presets_are_what_their_names_say() -> None:
    rainbow = DQN("textenvs/Copy-v0", **DQN.presets["rainbow"]).config
    assert (rainbow.double, rainbow.dueling, rainbow.n_step, rainbow.priority_alpha) == (True, True, 3, 0.5)
    assert (rainbow.temperature, rainbow.lower_bound) == (0.0, False)
    textbook = DQN("textenvs/Copy-v0", **DQN.presets["textbook"]).config
    assert (textbook.n_step, textbook.dueling, textbook.priority_alpha, textbook.loss) == (1, False, 0.0, "huber")
    assert (textbook.target_tau, textbook.target_interval, textbook.epsilon_start) == (1.0, 100, 1.0)


def test_the_rainbow_presets_importance_weights_become_exact() -> None:
    sizes = {"width": 16, "num_heads": 2, "batch_size": 8, "learning_starts": 8, "updates_per_window": 1}
    shorter = {"schedules": {"priority_beta": [[0, 0.4], [200, 1.0]]}}
    agent = DQN("textenvs/Copy-v0", env_kwargs={"length": 2}, **{**DQN.presets["rainbow"], **sizes, **shorter})
    assert agent.config.priority_beta == 0.4
    asked: list[float] = []
    sample = agent.replay.sample
    agent.replay.sample = lambda *args, **kwargs: asked.append(kwargs["beta"]) or sample(*args, **kwargs)  # type: ignore[method-assign, func-returns-value]
    agent.learn(300)
    assert asked[0] < asked[1] < 1
    assert asked[-1] == 1.0
