"""RLOO, GRPO, A2C and REINFORCE train a language model by the protocol that PPO trains it by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import textenvs
from agents import A2C, GRPO, REINFORCE, RLOO, CheckpointError
from agents.groups import GroupAgent
from agents.lm import LMActorCritic

V, T = 11, 7
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
PROMPTS = ["1", "23", "456", "7890", "01", "9"]
AGENTS = [RLOO, GRPO, A2C, REINFORCE]


def ones(completions: list[str]) -> list[float]:
    """The share of ones: something to be learnt."""
    return [text.count("1") / T for text in completions]


@pytest.fixture
def make_agent(make_model: Any) -> Any:
    def make(agent_class: Any, kind: str = "gpt2", num_envs: int = 8, **config: Any) -> Any:
        policy = LMActorCritic(make_model(kind))
        group_size = 4 if issubclass(agent_class, GroupAgent) else 1
        sizes = {"max_new_tokens": T, "num_envs": num_envs, "prompt_length": 4, "group_size": group_size}
        envs = textenvs.from_prompts(PROMPTS, VOCAB, reward=ones, **sizes)
        options = {"kl_coef": 0.1, "learning_rate": 0.003} | config
        return agent_class(envs, policy=policy, reference=policy.frozen_copy(), **options)

    return make


@pytest.mark.parametrize("agent_class", AGENTS)
def test_kl_0_at_the_first_step_and_the_reference_stays(agent_class: Any, make_agent: Any) -> None:
    agent = make_agent(agent_class)
    frozen = {name: p.clone() for name, p in agent.reference.named_parameters()}
    trained = {name: p.clone() for name, p in agent.policy.named_parameters() if "value_head" not in name}
    while not agent.num_updates:
        agent.learn(1)
    assert abs(agent.metrics["objective/kl"]) < 1e-5
    agent.learn(300)
    assert agent.metrics["objective/kl"] > 1e-4
    assert all(torch.equal(frozen[name], p) for name, p in agent.reference.named_parameters())
    parameters = dict(agent.policy.named_parameters())
    assert [name for name, p in trained.items() if torch.equal(parameters[name], p)] == []


@pytest.mark.parametrize("agent_class", AGENTS)
def test_learn_save_load_learn_equals_learning_through(agent_class: Any, make_agent: Any, tmp_path: Path) -> None:
    stopped, straight = make_agent(agent_class), make_agent(agent_class)
    stopped.learn(150)
    stopped.save(tmp_path / "checkpoint")
    fresh = make_agent(agent_class, learning_rate=0.5)
    resumed = agent_class.load(
        tmp_path / "checkpoint", env=fresh.envs, policy=fresh.policy, reference=fresh.reference
    ).learn(150)
    straight.learn(150)
    straight.learn(150)
    assert torch.equal(resumed.parameters, straight.parameters)
    assert not torch.equal(resumed.parameters, stopped.parameters)
    name = agent_class.__name__
    with torch.no_grad():
        next(fresh.reference.parameters()).add_(1)
    with pytest.raises(CheckpointError, match=rf"{name}\.load\(…, policy=, reference=\) the same ones"):
        agent_class.load(tmp_path / "checkpoint", env=fresh.envs, policy=fresh.policy, reference=fresh.reference)


@pytest.mark.parametrize("agent_class", AGENTS)
def test_they_learn_to_write_ones(agent_class: Any, make_agent: Any) -> None:
    agent = make_agent(agent_class, "llama", num_envs=32, learning_rate=0.02, kl_coef=0.01)
    agent.learn(224)
    before = agent.metrics["charts/episodic_return"]
    agent.learn(8_000)
    assert agent.metrics["charts/episodic_return"] > before + 0.4
    assert agent.metrics["objective/kl"] > 1


def test_a_language_model_brings_its_own_defaults(make_model: Any) -> None:
    policy = LMActorCritic(make_model("gpt2"))
    envs = textenvs.from_prompts(PROMPTS, VOCAB, reward=ones, max_new_tokens=T, num_envs=8, group_size=4)
    assert RLOO(envs, policy=policy).config.learning_rate == 1e-5
    assert A2C(envs, policy=policy, learning_rate=0.5).config.learning_rate == 0.5
    assert A2C(envs, policy=policy).config.vf_coef == 0.1
