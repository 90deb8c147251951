"""Write a text yourself, or watch an agent write one.

    python scripts/play.py textenvs/Reverse-v0                                        # you write
    python scripts/play.py textenvs/Prompts-v0 --env-args split test
    python scripts/play.py --checkpoint runs/reverse                                  # watch, with its probabilities
    python scripts/play.py textenvs/Reverse-v0 --agent OracleAgent --episodes 3

You write a line at a time: it may hold one token or many. An empty line is EOS, #7 #8 are the tokens with the ids 7 and
8, and :q (or the end of the input) leaves.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import agents
from agents.base import Agent
from agents.checkpoint import CheckpointError, load_config
from textenvs import TextEnv, TextSpec, list_envs
from textenvs.errors import unknown_name

EXACT_UP_TO = 4_096
"""Tokens of which an agent's policy is asked one by one; beyond, its probabilities are estimated from samples."""
SAMPLES = 1_000
SHOWN = 40
"""Tokens of a vocabulary that are listed for a person."""


@dataclass(frozen=True)
class Args:
    """Options."""

    env: tyro.conf.Positional[str | None] = None
    """Environment id; with --checkpoint by default the one that the agent was trained on."""
    env_args: dict[str, str] = field(default_factory=dict)
    """Sizes and other arguments of the environment: --env-args length 6 num_symbols 10 (values are JSON)."""
    reward: str | None = None
    """A reward: a name, or JSON of any form that reward= takes. Default: the task's own."""
    checkpoint: Path | None = None
    """Watch the agent that was saved there (by its save(), or by train.py --out); the environment's arguments are then
    those that it was trained with, unless --env-args says otherwise."""
    agent: str | None = None
    """Watch an agent that needs no training: RandomAgent or OracleAgent."""
    episodes: int | None = None
    """Texts to write; default 1 when watching, as many as you like when writing."""
    seed: int = 0
    sample: bool = False
    """Watch it draw from its probabilities instead of taking the best token."""
    top: int = 5
    """Tokens whose probabilities are shown."""
    delay: float = 0.0
    """Seconds between two tokens."""


class Quit(Exception):
    """The person wants to stop."""


def from_json(text: str) -> Any:
    """The value of a JSON text; what is not JSON is the string itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main(args: Args) -> None:
    """Play."""
    if args.checkpoint is not None and args.agent is not None:
        sys.exit("Give either --checkpoint or --agent: one of them writes.")
    kwargs = {name: from_json(value) for name, value in args.env_args.items()}
    if args.reward is not None:
        kwargs["reward"] = from_json(args.reward)
    agent, env_id = None, args.env
    if args.checkpoint is not None:
        folder = run_checkpoint(args.checkpoint)
        env_id, kwargs = saved_env(folder, env_id, kwargs)
    if env_id is None:
        sys.exit(f"Give the id of an environment, one of {', '.join(list_envs())}; or --checkpoint.")
    env = make_env(env_id, kwargs)
    if args.checkpoint is not None:
        agent = load_agent(folder, env_id, kwargs)
    elif args.agent is not None:
        known = {"RandomAgent": agents.RandomAgent, "OracleAgent": agents.OracleAgent}
        if args.agent not in known:
            sys.exit(unknown_name("agent", args.agent, known) + " Others are watched from a --checkpoint.")
        agent = known[args.agent](env_id, env_kwargs=kwargs, num_envs=1, seed=args.seed)
    if agent is not None:
        agent.seed_prediction(args.seed)
    episodes = args.episodes if args.episodes is not None else (None if agent is None else 1)
    scores: list[float] = []
    try:
        while episodes is None or len(scores) < episodes:
            _, info = env.reset(seed=args.seed if not scores else None)
            end = watch(env, agent, info, args) if agent is not None else write(env)
            scores.append(end.get("score", float("nan")))
            show_end(env, end)
    except Quit:
        print()
    if len(scores) > 1:
        print(f"{len(scores)} texts, mean score {np.nanmean(scores):.3f}")


def make_env(env_id: str, kwargs: dict[str, Any]) -> TextEnv:
    """The environment.

    Raises:
        SystemExit: there is none of this name, or none with these arguments; or it is no text environment.
    """
    try:
        env: Any = gym.make(env_id, **kwargs).unwrapped
    except gym.error.UnregisteredEnv as error:
        sys.exit(f"{error} There are {', '.join(list_envs())}.")
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        sys.exit(str(error))
    if not isinstance(env, TextEnv):
        sys.exit(f"{env_id} is no text environment.")
    env.render_mode = "ansi"
    return env


# -- a person ----------------------------------------------------------------------------------------------------------


def write(env: TextEnv) -> dict[str, Any]:
    """Ask for tokens until the text is over; the last info.

    Raises:
        Quit: the input is at its end, or the person wants to.
    """
    spec = env.text_spec
    print(f"\n{env.render()}")
    print(describe(spec))
    while True:
        left = spec.max_new_tokens - written(env)
        print(f"{left} tokens left{legal_tokens(env)} > ", end="", flush=True)
        for token in read_tokens(env):
            if not env.action_masks()[token]:
                print(f"{spec.vocab.tokens[token]!r} is not allowed here{legal_tokens(env)}.")
                break
            *_, terminated, _, info = env.step(token)
            if terminated:
                print(env.render())
                return info
        print(env.render())


def read_tokens(env: TextEnv) -> list[int]:
    """Ids of the next line; none if it cannot be written, which is said.

    Raises:
        Quit: see :func:`write`.
    """
    spec, line = env.text_spec, sys.stdin.readline()
    if not line or line.strip() == ":q":
        raise Quit
    line = line.rstrip("\r\n")
    if not line:
        if not spec.eos_ids:
            print("This task has no EOS: the text is over when its budget is spent.")
        return list(spec.eos_ids[:1])
    if re.fullmatch(r"(#[0-9]{1,9}\s*)+", line):
        ids = [int(digits) for digits in re.findall("[0-9]+", line)]
        if max(ids) >= spec.num_tokens:
            print(f"Token ids are 0 … {spec.num_tokens - 1}.")
            return []
        return ids
    try:
        return spec.vocab.encode(line)
    except ValueError as error:
        print(error)
        return []


def describe(spec: TextSpec) -> str:
    """The vocabulary, in a line."""
    tokens = [repr(token) for i, token in enumerate(spec.vocab.tokens) if i not in spec.eos_ids]
    listed = ", ".join(tokens[:SHOWN]) + (", …" if len(tokens) > SHOWN else "")
    ending = "; an empty line ends the text" if spec.eos_ids else ""
    return f"{len(tokens)} tokens: {listed}{ending}"


def legal_tokens(env: TextEnv) -> str:
    """The legal tokens, where not all of them are."""
    mask = env.action_masks()
    if mask.all():
        return ""
    legal = [env.text_spec.vocab.tokens[i] for i in np.flatnonzero(mask)]
    return f" (legal: {' '.join(legal[:SHOWN])}{' …' if len(legal) > SHOWN else ''})"


# -- an agent ----------------------------------------------------------------------------------------------------------


def run_checkpoint(folder: Path) -> Path:
    """The checkpoint itself, or the one of a run of train.py."""
    inner = folder / "checkpoint"
    return inner if inner.is_dir() and not (folder / "config.json").is_file() else folder


def saved_env(folder: Path, env_id: str | None, kwargs: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The environment of a checkpoint unless another is named, and its arguments updated by ``kwargs``.

    Raises:
        SystemExit: no checkpoint, or one that does not say how its environment was made.
    """
    try:
        described = load_config(folder)["env"]
    except CheckpointError as error:
        sys.exit(str(error))
    if env_id is None and described is None:
        sys.exit(f"{folder} does not say how its environment was made: give its id, and its arguments as --env-args.")
    same = described is not None and described["id"] == (env_id or described["id"])
    return env_id or described["id"], {**(described["kwargs"] if same else {}), **kwargs}


def load_agent(folder: Path, env_id: str, kwargs: dict[str, Any]) -> Agent:
    """The agent of a checkpoint.

    Raises:
        SystemExit: one of an agent that this program does not know, or of another environment.
    """
    name = load_config(folder)["agent"]
    if not hasattr(agents, name):
        sys.exit(f"{folder} is a checkpoint of {name!r}, which the package agents does not have.")
    envs = gym.make_vec(env_id, num_envs=1, vectorization_mode="vector_entry_point", **kwargs)
    try:
        agent: Agent = getattr(agents, name).load(folder, env=envs)
    except CheckpointError as error:
        sys.exit(str(error))
    return agent


def watch(env: TextEnv, agent: Agent, info: dict[str, Any], args: Args) -> dict[str, Any]:
    """Let an agent write, and show what it thinks of each token; the last info."""
    print(f"\n{env.render()}")
    tokens = env.text_spec.vocab.tokens
    while True:
        row, mask = observation(env), info.get("action_mask")
        probabilities, exact = token_probabilities(agent, row, mask)
        action = int(agent.predict(row, deterministic=not args.sample, action_mask=mask)[0])
        best = np.argsort(-probabilities, kind="stable")[: args.top]
        thoughts = "  ".join(f"{tokens[i]!r} {probabilities[i]:.1%}" for i in best if probabilities[i] > 0)
        *_, terminated, _, info = env.step(action)
        print(f"{env.render()}\n    wrote {tokens[action]!r} of {'' if exact else '≈ '}{thoughts}")
        if terminated:
            return info
        time.sleep(args.delay)


def token_probabilities(agent: Agent, row: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """Probabilities of the next token when the agent samples.

    Args:
        agent: any agent.
        row: int64 [L], an observation of an unfinished text.
        mask: [V], non-zero where an action is legal; None where every action is.

    Returns:
        float64 [V], and whether they are exact: those of an agent with a policy are, over a vocabulary that is not too
        large. Those of others are the shares of 1,000 samples.
    """
    spec = agent.text_spec
    policy = getattr(agent, "policy", None)
    if policy is None or spec.num_tokens > EXACT_UP_TO:
        masks = None if mask is None else np.tile(mask, (SAMPLES, 1))
        drawn = agent.predict(np.tile(row, (SAMPLES, 1)), deterministic=False, action_mask=masks)[0]
        return np.bincount(drawn, minlength=spec.num_tokens) / SAMPLES, False
    # Every way to go on, as a batch of texts whose last token it is.
    step = int((row[spec.prompt_length :] != spec.pad_id).sum())
    rows = torch.from_numpy(np.tile(row, (spec.num_tokens, 1)))
    rows[:, spec.prompt_length + step] = torch.arange(spec.num_tokens)
    lengths = torch.full((spec.num_tokens,), step + 1)
    legal = None
    if mask is not None:
        legal = torch.ones(spec.num_tokens, spec.max_new_tokens, spec.num_tokens, dtype=torch.bool)
        legal[:, step] = torch.from_numpy(np.asarray(mask) != 0)
    with torch.no_grad():
        arrays = (None if x is None else x.to(policy.device) for x in (rows, lengths, legal))
        logprobs = policy.evaluate(*arrays).logprobs[:, step]
    return logprobs.double().exp().cpu().numpy(), True


# -- both --------------------------------------------------------------------------------------------------------------


def observation(env: TextEnv) -> np.ndarray:
    """The present row, int64 [L]."""
    return env.get_state()["rows"][0]


def written(env: TextEnv) -> int:
    """Tokens written so far."""
    return int(env.get_state()["written"][0])


def show_end(env: TextEnv, info: dict[str, Any]) -> None:
    """The parts of the score, and a best text where the task knows one."""
    parts = {**info.get("reward_components", {}), **({"gold": info["gold_score"]} if "gold_score" in info else {})}
    if len(parts) > 1:
        print("    " + ", ".join(f"{name} {value:.3f}" for name, value in parts.items()))
    if info["finish_reason"] == "invalid":
        print("    an illegal token ended the text: it has no score")
    try:
        best = env.task.oracle(observation(env)[None, : env.text_spec.prompt_length])
    except (NotImplementedError, ValueError):  # nobody knows one
        return
    print(f"    a best text: {env.task.vocab.decode_rows(best)[0]}")


if __name__ == "__main__":
    main(tyro.cli(Args))
