"""Train an agent on a text environment.

    python scripts/train.py --agent PPO --env textenvs/Reverse-v0 --timesteps 200000 --out runs/reverse
    python scripts/train.py --agent DQN --reward '[[1, "match"], [0, "prefix"]]' --out runs/dqn
    python scripts/train.py --out runs/reverse --resume --timesteps 200000

The folder then holds a checkpoint of the last finished update, metrics.csv and TensorBoard's files. A run that was
stopped by Ctrl-C, by a reward model that failed, or by force goes on with --resume. Rewards of your own are found in
the folder that you are in: --reward my_module:my_function.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro

import agents
from agents.base import Agent
from agents.checkpoint import CheckpointError, load_config, recover
from agents.evaluation import evaluate_agent
from textenvs import RewardError
from textenvs.errors import unknown_name

AGENTS: dict[str, type[Agent]] = {
    each.__name__: each
    for each in (
        *(agents.PPO, agents.RLOO, agents.GRPO, agents.A2C, agents.REINFORCE),
        *(agents.DQN, agents.DiscreteSAC, agents.SoftQ, agents.RandomAgent),
    )
}


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


def env_kwargs(args: Args) -> dict[str, Any]:
    """Arguments of the environment."""
    kwargs = {name: from_json(value) for name, value in args.env_args.items()}
    return kwargs if args.reward is None else kwargs | {"reward": from_json(args.reward)}


def config(args: Args) -> dict[str, Any]:
    """Hyper-parameters of the agent."""
    return {name: from_json(value) for name, value in args.config.items()}


def contradictions(args: Args, saved: dict[str, Any]) -> Iterator[str]:
    """Options that are neither left out nor those of the run to go on with."""
    default, env = Args(), saved["env"] or {"id": None, "kwargs": {}}
    options = [
        ("--agent", args.agent, default.agent, saved["agent"]),
        ("--env", args.env, default.env, env["id"]),
        ("--seed", args.seed, default.seed, saved["seed"]),
    ]
    for name, value in env_kwargs(args).items():
        option = "--reward" if name == "reward" else f"--env-args {name}"
        options.append((option, value, None, env["kwargs"].get(name)))
    options += [(f"--config {name}", value, None, saved["config"].get(name)) for name, value in config(args).items()]
    for option, here, left_out, there in options:
        if here not in (left_out, there):
            yield f"{option} is {there!r} there, {here!r} here"


def make_agent(args: Args) -> Agent:
    """A new agent, or the one in the folder.

    Raises:
        SystemExit: the folder holds a run already, none to go on with, or one of other options; bad options.
    """
    checkpoint = args.out / "checkpoint"
    try:
        recover(checkpoint)
        if args.resume:
            if not checkpoint.exists():
                sys.exit(f"There is no checkpoint in {args.out} to go on from: start without --resume.")
            saved = load_config(checkpoint)
            different = "; ".join(contradictions(args, saved))
            if different:
                sys.exit(
                    f"{args.out} holds a run of other options ({different}): leave them out, or choose another --out."
                )
            return find_agent(saved["agent"]).load(checkpoint, log_dir=args.out)
        if checkpoint.exists():
            sys.exit(f"{args.out} holds a run already: go on with --resume, or choose another folder with --out.")
        agent = find_agent(args.agent)
        return agent(args.env, seed=args.seed, env_kwargs=env_kwargs(args), log_dir=args.out, **config(args))
    except (CheckpointError, ImportError, OSError, TypeError, ValueError, gym.error.Error) as error:
        sys.exit(str(error))


def find_agent(name: str) -> type[Agent]:
    """An agent by its name.

    Raises:
        SystemExit: there is none.
    """
    if name not in AGENTS:
        sys.exit(unknown_name("agent", name, AGENTS))
    return AGENTS[name]


def train(agent: Agent, args: Args) -> None:
    """Learn, and keep a checkpoint of the last finished update, whatever happens.

    Raises:
        SystemExit: stopped by a reward model that failed, or by Ctrl-C.
    """
    checkpoint = args.out / "checkpoint"
    saved = agent.num_timesteps if args.resume else None  # what the checkpoint holds

    def save(agent: Agent) -> None:
        nonlocal saved
        if saved != agent.num_timesteps:
            agent.save(checkpoint)
            saved = agent.num_timesteps

    def save_now_and_then(agent: Agent) -> None:
        if agent.num_updates % args.save_every == 0:
            save(agent)

    try:
        agent.learn(args.timesteps, callback=save_now_and_then, progress_bar=sys.stderr.isatty())
    except RewardError as error:
        save(agent)  # it failed before an update began: the agent is as the last one left it
        cause = f"{error}\nStopped"
    except KeyboardInterrupt:
        cause = "\nStopped"
        if agent.collector.started:  # between two batches; a second Ctrl-C does not wait for the end of an update
            save(agent)
    else:
        save(agent)
        return
    if saved is None:
        sys.exit(f"{cause} in the first update: nothing has been saved yet.")
    sys.exit(f"{cause} at {saved:,} timesteps: the checkpoint is in {checkpoint}; go on with --resume.")


def main(args: Args) -> None:
    """Train, save, evaluate."""
    for option, value in (("timesteps", args.timesteps), ("save-every", args.save_every), ("threads", args.threads)):
        if value < 1:
            sys.exit(f"--{option} must be at least 1; got {value}.")
    torch.set_num_threads(args.threads)
    agent = make_agent(args)
    train(agent, args)
    print(f"{type(agent).__name__} on {agent.env_id}: {agent.num_timesteps:,} tokens, {agent.num_episodes:,} episodes")
    print(f"checkpoint: {args.out / 'checkpoint'}")
    has_prompts = agent.text_spec.prompt_length > 0
    try:
        result = evaluate_agent(
            agent,
            agent.env_id or args.env,
            split="test" if has_prompts else "train",
            num_episodes=256 if has_prompts else 1,
            seed=agent.seed,
            env_kwargs=agent.env_kwargs,
        )
    except RewardError as error:
        sys.exit(f"{error}\nThe training is over and saved; its evaluation failed.")
    print(f"mean score, greedy, on {'test prompts' if has_prompts else 'the task itself'}: {result.scores.mean():.3f}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))  # rewards of one's own: module:attribute
    main(tyro.cli(Args))
