"""What test_distributed.py runs in two processes, and in one with as many sub-environments as both have.

accelerate launch --multi_gpu --num_processes 2 tests/agents/two_processes.py FOLDER      (on a CPU too)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import textenvs
from agents import DQN, GRPO, PPO, Agent, CheckpointError, RandomAgent, distributed
from agents.lm import LMActorCritic
from agents.networks import TransformerConfig
from agents.on_policy import OnPolicyAgent
from agents.policies import TransformerPolicy

V, P, T = 11, 4, 7
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
PROMPTS = ["1", "23", "456", "7890", "01", "9"]
COPY = {"length": 4, "num_symbols": 3, "min_length": 1}


def digits(completions: list[str]) -> list[float]:
    """Mean digit: hardly two texts score alike, so no batch is whitened that differs by rounding only."""
    return [sum(map(int, text)) / (9 * max(len(text), 1)) for text in completions]


def prompt_envs(num_envs: int, **others: Any) -> Any:
    sizes = {"max_new_tokens": T, "prompt_length": P, "num_envs": num_envs}
    return textenvs.from_prompts(PROMPTS, VOCAB, reward=digits, **sizes, **others)


def language_model() -> Any:
    """A GPT-2 whose distributions are far from uniform."""
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = transformers.GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=2, n_head=2, **ids)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model


def gpt2(num_envs: int, *, critic: str = "shared", envs: Any = None, **config: Any) -> PPO:
    policy = LMActorCritic(language_model(), critic=critic)
    options = {"kl_coef": 0.1, "learning_rate": 1e-3, "epochs": 2, "num_minibatches": 1} | config
    return PPO(envs or prompt_envs(num_envs), policy=policy, reference=policy.frozen_copy(), **options)


def small(num_envs: int, **config: Any) -> PPO:
    options = {"num_envs": num_envs, "width": 16, "num_heads": 2} | config
    return PPO("textenvs/Copy-v0", env_kwargs=COPY, **options)


def small_with_reference(num_envs: int, **config: Any) -> PPO:
    policy = TransformerPolicy(V, P, T, TransformerConfig(1, 16, 2))
    with torch.no_grad():
        policy.policy_head.weight.mul_(30)
    options = {"kl_coef": 0.1, "epochs": 2, "num_minibatches": 2} | config
    return PPO(prompt_envs(num_envs), policy=policy, reference=policy.frozen_copy(), **options)


def cut_off(num_envs: int) -> PPO:
    """Texts that a time limit cuts off, so that what comes after them is asked for."""
    task = prompt_envs(1).task
    envs = SyncVectorEnv(
        [lambda: TimeLimit(textenvs.TextEnv(task, reward=digits), max_episode_steps=5)] * num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    return gpt2(num_envs, envs=envs)


def by_hand(num_envs: int) -> PPO:
    envs = textenvs.TextVectorEnv("Copy", num_envs, autoreset_mode=AutoresetMode.DISABLED, **COPY)
    return PPO(envs, width=16, num_heads=2, num_minibatches=2)


def groups(num_envs: int) -> GRPO:
    """A task without prompts: with them, groups of two processes have other prompts than those of one."""
    return GRPO("textenvs/HiddenTarget-v0", num_envs=num_envs, group_size=4, width=16, num_heads=2)


# name -> (how an agent is made, sub-environments in each of two processes, timesteps)
SCENARIOS: dict[str, tuple[Callable[[int], OnPolicyAgent], int, int]] = {
    "gpt2": (gpt2, 4, 250),
    "gpt2, every switch": (
        lambda num_envs: gpt2(
            num_envs,
            num_minibatches=3,
            micro_batch_size=2,
            kl_target=0.5,
            kl_horizon=50,
            target_kl=0.001,
            whiten_rewards=True,
            ent_coef=0.01,
            anneal_timesteps=1_000,
        ),
        4,
        250,
    ),
    "gpt2 with a critic": (lambda num_envs: gpt2(num_envs, critic="copy", num_minibatches=2), 4, 250),
    "gpt2, cut off": (cut_off, 4, 150),
    "small": (small, 8, 600),
    "small with a reference": (small_with_reference, 4, 250),
    "small, DISABLED": (by_hand, 8, 300),
    "groups": (groups, 8, 600),
    "few texts": (lambda num_envs: small(num_envs, num_steps=2, num_minibatches=2), 1, 120),
}


def play(agent: OnPolicyAgent, timesteps: int) -> dict[str, Any]:
    """Learn; what came of it."""
    history: list[dict[str, float]] = []
    batches: list[list[int]] = []
    collect, before = agent.collector.collect, agent.parameters.tolist()

    def watched(num_steps: int) -> Any:
        rollout = collect(num_steps)
        batches.append(rollout.sub_envs.tolist())
        return rollout

    agent.collector.collect = watched  # type: ignore[method-assign]
    agent.learn(timesteps, callback=lambda _: history.append(dict(agent.metrics)))
    counters = (agent.num_timesteps, agent.num_episodes, agent.num_updates, agent.gradient_samples)
    return {
        "metrics": history,
        "counters": counters,
        "batches": batches,  # where each episode was played
        "kl_coef": agent.kl_coef,
        "parameters": agent.parameters.tolist(),
        "parameters_before": before,
    }


def error_of(function: Callable[[], Any]) -> str:
    try:
        function()
    except (CheckpointError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def errors(folder: Path) -> dict[str, str]:
    """Messages about processes that cannot train together."""
    second = distributed.rank() == 1
    with_other_weights = small(2)
    with_other_reference = small_with_reference(2)
    with torch.no_grad():
        with_other_weights.parameters[7] += second
        with_other_reference.reference.policy_head.bias[0] += second
    out_of_step = small(2)
    if second:
        out_of_step.policy.act(np.zeros((2, out_of_step.text_spec.row_length), dtype=np.int64))
    next_step = textenvs.TextVectorEnv("Copy", 2, autoreset_mode=AutoresetMode.NEXT_STEP, **COPY)
    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "notes.txt").touch()
    cases: dict[str, Callable[[], Any]] = {
        "weights": lambda: with_other_weights.learn(1),
        "reference": lambda: with_other_reference.learn(1),
        "random stream": lambda: out_of_step.learn(1),
        "seed": lambda: small(2, seed=distributed.rank()).learn(1),
        "num_envs": lambda: small(2 + distributed.rank()).learn(1),
        "learning_rate": lambda: small(2, learning_rate=0.1 + distributed.rank()).learn(1),
        "NEXT_STEP": lambda: PPO(next_step).learn(1),
        "DQN": lambda: DQN("textenvs/Copy-v0").learn(1),
        "RandomAgent": lambda: RandomAgent("textenvs/Copy-v0").learn(1),
        "save": lambda: small(2).save(folder / "taken"),
    }
    return {name: error_of(case) for name, case in cases.items()}


def stops() -> dict[str, int]:
    """Updates until one process alone wants to stop."""
    by_callback, by_signal = small(4), small(4)
    by_callback.learn(10_000, callback=lambda agent: distributed.rank() == 0 or agent.num_updates < 3)

    def interrupt(agent: Agent) -> None:
        if distributed.rank() == 1 and agent.num_updates == 2:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        by_signal.learn(10_000, callback=interrupt)
    except KeyboardInterrupt:
        return {"callback": by_callback.num_updates, "signal": by_signal.num_updates}
    raise AssertionError("the interrupt was lost")


def resume(folder: Path) -> dict[str, Any]:
    """k updates, save, load and k updates, beside 2k updates."""
    stopped, straight = small_with_reference(3, num_steps=5), small_with_reference(3, num_steps=5)
    stopped.learn(100)
    stopped.save(folder / "checkpoint")
    fresh = small_with_reference(3)
    resumed = PPO.load(folder / "checkpoint", prompt_envs(3), policy=fresh.policy, reference=fresh.reference)
    straight.learn(100)
    return {
        "saved": stopped.parameters.tolist(),
        "in_flight": stopped.collector.get_state()["lengths"].tolist(),
        "resumed": play(resumed, 100),
        "straight": play(straight, 100),
    }


def main(folder: Path) -> None:
    device = distributed.join()
    assert (device.type, distributed.world_size()) == ("cpu", 2), (device, distributed.world_size())
    torch.set_num_threads(1)
    results: dict[str, Any] = {"rank": distributed.rank()}
    for name, (make, num_envs, timesteps) in SCENARIOS.items():
        results[name] = play(make(num_envs), timesteps)
    small(4, log_dir=folder / "log").learn(200, progress_bar=True)
    results["errors"], results["stops"], results["resume"] = errors(folder), stops(), resume(folder)
    policy = gpt2(2).policy
    policy.save_pretrained(folder / "policy")
    drawn = distributed.draw_uniforms(3, torch.Generator().manual_seed(0)).tolist()
    rows = torch.arange(5.0)
    divided = distributed.divide(lambda x, _: (2 * x, x.new_full((len(x),), distributed.rank())), rows, None)
    results |= {"uniforms": drawn, "divided": [x.tolist() for x in divided]}
    results["divided, one row"] = distributed.divide(lambda x: (x + 1,), rows[:1])[0].tolist()
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
