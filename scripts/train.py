"""Train an agent on a text environment.

    python scripts/train.py --agent PPO --env textenvs/Reverse-v0 --timesteps 200000 --out runs/reverse
    python scripts/train.py --agent DQN --reward '[[1, "match"], [0, "prefix"]]' --out runs/dqn
    python scripts/train.py --out runs/reverse --resume --timesteps 200000

The folder then holds a checkpoint of the last finished update, progress.csv and TensorBoard's files. A run that was
stopped by Ctrl-C, by a reward model that failed, or by a power cut goes on with --resume.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro

import agents
from agents.base import Agent
from agents.checkpoint import load_config
from agents.evaluation import evaluate_agent
from textenvs import RewardError
from textenvs.errors import unknown_name

AGENTS: dict[str, type[Agent]] = {"PPO": agents.PPO, "DQN": agents.DQN, "RandomAgent": agents.RandomAgent}


@dataclass(frozen=True)
class Args:
    """Options."""

    agent: str = "PPO"
    """One of the agents."""
    env: str = "textenvs/Reverse-v0"
    """Environment id."""
    env_args: dict[str, str] = field(default_factory=dict)
    """Sizes and other arguments of the environment: --env-args length 6 num_symbols 10 (values are JSON)."""
    reward: str | None = None
    """A reward: a name, or JSON of any form that reward= takes. Default: the task's own."""
    config: dict[str, str] = field(default_factory=dict)
    """Hyper-parameters of the agent: --config num_envs 32 learning_rate 3e-4 (values are JSON)."""
    timesteps: int = 200_000
    """Tokens to write (with --resume: more tokens)."""
    seed: int = 0
    out: Path = Path("runs/train")
    """Folder for checkpoint and logs."""
    resume: bool = False
    """Go on from the checkpoint in the folder."""
    save_every: int = 1
    """Updates between two checkpoints."""
    threads: int = 1
    """Threads of PyTorch."""


def from_json(text: str) -> Any:
    """The value of a JSON text; what is not JSON is the string itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def make_agent(args: Args) -> Agent:
    """A new agent, or the one in the folder.

    Raises:
        SystemExit: the folder holds a run already, or none to go on with; an unknown agent.
    """
    checkpoint = args.out / "checkpoint"
    if args.resume:
        if not checkpoint.exists():
            sys.exit(f"There is no checkpoint in {args.out} to go on from: start without --resume.")
        name = load_config(checkpoint)["agent"]
        return AGENTS[name].load(checkpoint, log_dir=args.out)
    if checkpoint.exists():
        sys.exit(f"{args.out} holds a run already: go on with --resume, or choose another folder with --out.")
    if args.agent not in AGENTS:
        sys.exit(unknown_name("agent", args.agent, AGENTS))
    env_kwargs = {name: from_json(value) for name, value in args.env_args.items()}
    if args.reward is not None:
        env_kwargs["reward"] = from_json(args.reward)
    config = {name: from_json(value) for name, value in args.config.items()}
    return AGENTS[args.agent](args.env, seed=args.seed, env_kwargs=env_kwargs, log_dir=args.out, **config)


def main(args: Args) -> None:
    """Train, save, evaluate."""
    torch.set_num_threads(args.threads)
    agent = make_agent(args)
    checkpoint = args.out / "checkpoint"

    def save(agent: Agent) -> None:
        if agent.num_updates % args.save_every == 0:
            agent.save(checkpoint)

    how = f"the checkpoint of the last saved update is in {checkpoint}; go on with --resume"
    try:
        agent.learn(args.timesteps, callback=save, progress_bar=sys.stderr.isatty())
    except RewardError as error:
        sys.exit(f"{error}\nStopped after {agent.num_updates} updates: {how}.")
    except KeyboardInterrupt:
        agent.save(checkpoint)
        sys.exit(f"\nStopped after {agent.num_updates} updates: {how}.")
    agent.save(checkpoint)
    has_prompts = agent.text_spec.prompt_length > 0
    result = evaluate_agent(
        agent,
        agent.env_id or args.env,
        split="test" if has_prompts else "train",
        num_episodes=256 if has_prompts else 1,
        seed=args.seed,
        env_kwargs=agent.env_kwargs,
    )
    print(f"{type(agent).__name__} on {agent.env_id}: {agent.num_timesteps:,} tokens, {agent.num_episodes:,} episodes")
    print(f"mean score, greedy, on {'test prompts' if has_prompts else 'the task itself'}: {result.scores.mean():.3f}")
    print(f"checkpoint: {checkpoint}")


if __name__ == "__main__":
    main(tyro.cli(Args))
