"""Train an agent on a text environment.

    python scripts/train.py --agent PPO --env textenvs/Reverse-v0 --timesteps 200000 --out runs/reverse
    python scripts/train.py --agent DQN --reward '[[1, "match"], [0, "prefix"]]' --out runs/dqn
    python scripts/train.py --out runs/reverse --resume --timesteps 200000
    python scripts/train.py --eval-every 10000 --stop-at 0.95 --keep-best --out runs/best
    python scripts/train.py --agent DQN --preset rainbow --demonstrations texts.jsonl --offline-updates 500
    python scripts/train.py --config schedules '{"learning_rate": [[0, 1e-3], [200000, 0]]}' --device cuda

The folder then holds a checkpoint of the last finished update, metrics.csv and TensorBoard's files; with
--eval-every also evaluations.csv, with --keep-best also the best checkpoint, in best. A run that was
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
from agents.callbacks import LogLines
from agents.checkpoint import CheckpointError, load_config, recover
from agents.evaluate_callback import EvaluateCallback
from agents.evaluation import evaluate_agent
from agents.off_policy import ReplayLearner
from textenvs import RewardError
from textenvs.errors import unknown_name

AGENTS: dict[str, type[Agent]] = {
    name: each
    for name, each in vars(agents).items()
    if isinstance(each, type) and issubclass(each, Agent) and each not in (Agent, agents.OracleAgent)
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
    preset: str | None = None
    """A named config of the agent, which --config changes: rainbow, textbook for DQN."""
    timesteps: int = 200_000
    """Tokens to write (with --resume: more tokens)."""
    seed: int = 0
    out: Path = Path("runs/train")
    """Folder for checkpoint and logs."""
    resume: bool = False
    """Go on from the checkpoint in the folder."""
    save_every: int = 1
    """Updates between two checkpoints."""
    eval_every: int | None = None
    """Timesteps between two evaluations on fixed prompts of both splits, greedy and sampled."""
    eval_episodes: int = 256
    """Episodes of each."""
    stop_at: float | None = None
    """Stop when the greedy score, on test prompts where there are prompts, has reached this in two evaluations in a
    row. Needs --eval-every."""
    keep_best: bool = False
    """Keep the checkpoint of the best evaluation. Needs --eval-every."""
    demonstrations: Path | None = None
    """A JSONL file of texts for the replay buffer, with or without scores: completion, prompt, score."""
    offline_updates: int = 0
    """Gradient steps on the demonstrations before anything is played."""
    log_every: float = 10.0
    """Seconds between two lines about learning, where no progress bar is shown."""
    device: str = "cpu"
    """Where the networks live: cpu, cuda."""
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


def config(args: Args, agent: type[Agent]) -> dict[str, Any]:
    """Hyper-parameters of the agent.

    Raises:
        SystemExit: no such preset.
    """
    if args.preset is not None and args.preset not in agent.presets:
        known = f"its presets are {', '.join(agent.presets)}" if agent.presets else "it has no presets"
        sys.exit(f"{agent.__name__} has no preset {args.preset!r}; {known}.")
    preset = {} if args.preset is None else dict(agent.presets[args.preset])
    return preset | {name: from_json(value) for name, value in args.config.items()}


def contradictions(args: Args, saved: dict[str, Any]) -> Iterator[str]:
    """Options that are neither left out nor those of the run to go on with."""
    default, env = Args(), saved["env"] or {"id": None, "kwargs": {}}
    given = config(args, find_agent(saved["agent"]))
    options = [
        ("--agent", args.agent, default.agent, saved["agent"]),
        ("--env", args.env, default.env, env["id"]),
        ("--seed", args.seed, default.seed, saved["seed"]),
    ]
    for name, value in env_kwargs(args).items():
        option = "--reward" if name == "reward" else f"--env-args {name}"
        options.append((option, value, None, env["kwargs"].get(name)))
    options += [(f"--config {name}", value, None, saved["config"].get(name)) for name, value in given.items()]
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
            return find_agent(saved["agent"]).load(checkpoint, device=args.device, log_dir=args.out)
        if checkpoint.exists() or (args.out / "best").exists():
            sys.exit(f"{args.out} holds a run already: go on with --resume, or choose another folder with --out.")
        kind = find_agent(args.agent)
        if (args.demonstrations or args.offline_updates) and not issubclass(kind, ReplayLearner):
            sys.exit(
                f"{args.agent} learns from its own texts alone; --demonstrations need an agent with a replay buffer."
            )
        options: dict[str, Any] = {"seed": args.seed, "device": args.device, "env_kwargs": env_kwargs(args)}
        agent = kind(args.env, log_dir=args.out, **options, **config(args, kind))
        if isinstance(agent, ReplayLearner):
            if args.demonstrations is not None:
                agent.add_demonstrations(args.demonstrations)
            if args.offline_updates:
                agent.learn_offline(args.offline_updates)
        return agent
    except (CheckpointError, ImportError, OSError, RewardError, TypeError, ValueError, gym.error.Error) as error:
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

    callbacks: list[Any] = [] if sys.stderr.isatty() else [LogLines(args.log_every)]
    if args.eval_every is not None:
        best = args.out / "best" if args.keep_best else None
        evaluate = EvaluateCallback(
            args.eval_every, num_episodes=args.eval_episodes, stop_at=args.stop_at, consecutive=2, keep_best=best
        )
        callbacks.append(evaluate)
    callbacks.append(save_now_and_then)  # last, so that the evaluation's state is in the checkpoint

    try:
        agent.learn(args.timesteps, callback=callbacks, progress_bar=sys.stderr.isatty())
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
    at_least = {"timesteps": 1, "save_every": 1, "eval_every": 1, "eval_episodes": 1, "threads": 1}
    for name, least in (at_least | {"offline_updates": 0, "log_every": 0}).items():
        value = getattr(args, name)
        if value is not None and value < least:
            sys.exit(f"--{name.replace('_', '-')} must be at least {least}; got {value}.")
    if args.eval_every is None and (args.stop_at is not None or args.keep_best):
        sys.exit("--stop-at and --keep-best go by evaluations: say how often with --eval-every.")
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
