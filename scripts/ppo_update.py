"""One update of PPO with a KL penalty, step by step, with its real numbers; and what the clipping is for.

    python scripts/ppo_update.py                   # seconds; a figure in runs/ppo_update
    python scripts/ppo_update.py --preset smoke

A small policy writes prompts backwards (``textenvs/Reverse-v0``, 3 symbols out of 4). It has learnt a little, beside a
frozen copy of its beginning. Then a batch of texts is written, and every quantity of the update that follows is
printed. At last the same batch is used for many gradient steps, with the clipping and without: how far the policy
moves from the one that wrote the batch, and what it is really worth, are computed exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agents import PPO
from agents.benchmark.plots import COLOURS
from agents.collect import Rollout
from agents.exact import next_logprobs
from agents.losses import PolicyLoss, kl_k1, masked_mean, ppo_policy_loss, ppo_value_loss
from agents.networks import clip_gradient
from agents.policies import TransformerPolicy
from agents.returns import gae, step_mask, whiten
from textenvs.exact import ExactProblem

LENGTH, SYMBOLS = 3, 4
KL_COEF = 0.05
PROMPTS = 16
NO_CLIPPING = 1e9


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["full", "smoke"] = "full"
    seed: int = 0
    out: Path = Path("runs/ppo_update")


@dataclass(frozen=True)
class Update:
    """What one update is made of; arrays [B, T], one row a text, one column a token."""

    rows: Tensor  # [B, L] prompt and text
    lengths: Tensor  # [B]
    mask: Tensor
    logprobs: Tensor  # log π of the tokens as they were drawn
    ref_logprobs: Tensor  # log π_ref of the same tokens
    scores: Tensor  # the reward model's score on the last token, 0 elsewhere
    penalties: Tensor  # −β (log π − log π_ref)
    rewards: Tensor  # scores + penalties
    values: Tensor  # V before each token
    advantages: Tensor  # GAE
    returns: Tensor  # what V should have been
    whitened: Tensor  # advantages of mean 0 and variance 1


def make_agent(seed: int, timesteps: int) -> PPO:
    """A PPO agent that has learnt a little, beside a frozen copy of its beginning."""
    env_kwargs = {"length": LENGTH, "num_symbols": SYMBOLS}
    policy = TransformerPolicy(SYMBOLS, LENGTH, LENGTH, seed=seed)
    agent = PPO(
        "textenvs/Reverse-v0",
        seed=seed,
        env_kwargs=env_kwargs,
        policy=policy,
        reference=policy.frozen_copy(),
        kl_coef=KL_COEF,
        epochs=1,
        num_minibatches=1,
        num_envs=16,
    )
    return agent.learn(timesteps)


@torch.no_grad()
def prepare(agent: PPO, rollout: Rollout) -> Update:
    """Everything about a batch that is computed once, before the first gradient step."""
    assert agent.reference is not None
    config = agent.config
    rows, lengths = torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths)
    logprobs, scores = torch.from_numpy(rollout.logprobs), torch.from_numpy(rollout.rewards)
    mask = step_mask(lengths, rows.shape[1] - LENGTH)
    ref_logprobs = agent.reference.logprobs(rows, lengths)
    penalties = torch.where(mask, -agent.kl_coef * kl_k1(logprobs, ref_logprobs), 0.0)
    rewards = scores + penalties
    values, _ = agent.policy.values(rows, lengths)
    advantages = gae(rewards, values, lengths, torch.zeros(len(rows)), config.gamma, config.gae_lambda)
    returns = torch.where(mask, advantages + values, 0.0)
    return Update(
        rows=rows,
        lengths=lengths,
        mask=mask,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        scores=scores,
        penalties=penalties,
        rewards=rewards,
        values=values,
        advantages=advantages,
        returns=returns,
        whitened=whiten(advantages, mask),
    )


@dataclass(frozen=True)
class Step:
    """What one gradient step saw and did."""

    ratios: Tensor  # [B, T] π / π_old before the step
    policy: PolicyLoss
    value_loss: float
    entropy: float
    loss: float
    gradient_norm: float


def gradient_step(agent: PPO, batch: Update, clip_coef: float) -> Step:
    """One step of the optimiser on the whole batch: the loss of PPO, as in ``agents/ppo.py``."""
    config = agent.config
    agent.policy.invalidate_cache()
    new = agent.policy.evaluate(batch.rows, batch.lengths)
    policy = ppo_policy_loss(new.logprobs, batch.logprobs, batch.whitened, batch.mask, clip_coef)
    value_loss = ppo_value_loss(new.values, batch.values, batch.returns, batch.mask, config.value_clip)
    entropy = masked_mean(new.entropies, batch.mask)
    loss = policy.loss + config.vf_coef * value_loss - config.ent_coef * entropy
    agent.gradient.zero_()
    loss.backward()
    norm = float(agent.gradient.norm())
    clip_gradient(agent.gradient, config.max_grad_norm)
    agent.optimizer.step()
    ratios = (new.logprobs - batch.logprobs).exp().detach()
    return Step(ratios, policy, value_loss.item(), entropy.item(), loss.item(), norm)


def token_table(agent: PPO, batch: Update, ratios: Tensor, texts: int) -> Table:
    """The first texts of a batch, one line a token."""
    table = Table(title=f"{texts} of {len(batch.rows)} texts, one line a token")
    columns = ("prompt", "token", "log π", "log π_ref", "KL penalty", "score", "reward", "value", "advantage")
    for name in (*columns, "return", "whitened", "ratio after"):
        table.add_column(name, justify="right")
    vocab = agent.text_spec.vocab
    for i in range(texts):
        prompt = vocab.decode(batch.rows[i, :LENGTH].tolist())
        for t in range(int(batch.lengths[i])):
            numbers = (
                batch.logprobs,
                batch.ref_logprobs,
                batch.penalties,
                batch.scores,
                batch.rewards,
                batch.values,
                batch.advantages,
                batch.returns,
                batch.whitened,
                ratios,
            )
            token = vocab.decode([int(batch.rows[i, LENGTH + t])])
            table.add_row(prompt if t == 0 else "", token, *(f"{x[i, t].item():.3f}" for x in numbers))
        table.add_section()
    return table


def explain(console: Console, batch: Update, first: Step, after: PolicyLoss, clip_coef: float, config: Any) -> None:
    """The figures of the step, in words."""
    kl = -batch.penalties.sum(1).mean() / KL_COEF
    console.print(
        f"score {batch.scores.sum(1).mean():.3f} a text, KL to the reference {kl:.3f} "
        f"nats a text, so the reward is {batch.rewards.sum(1).mean():.3f}"
    )
    console.print(
        f"before the step: every ratio is 1 (largest |ratio − 1| {(first.ratios - 1)[batch.mask].abs().max():.1e}), "
        f"approx_kl {abs(first.policy.approx_kl):.6f}, clipfrac {first.policy.clipfrac:.3f}"
    )
    console.print(
        f"loss {first.loss:.4f} = policy loss {first.policy.loss.item():.4f} + {config.vf_coef} × value loss "
        f"{first.value_loss:.4f} − {config.ent_coef} × entropy {first.entropy:.4f}"
    )
    console.print(
        f"the gradient has length {first.gradient_norm:.3f}, and is cut to {config.max_grad_norm}; Adam takes a step"
    )
    console.print(
        f"after the step: approx_kl {after.approx_kl:.4f}, and {100 * after.clipfrac:.0f} % of the ratios lie "
        f"outside 1 ± {clip_coef}: further steps in their direction would pay nothing"
    )


def many_steps(seed: int, timesteps: int, clip_coef: float, steps: int, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The same batch for many steps: exact KL from the policy that wrote it, and exact expected score, at
    each step, on the first prompts of the set."""
    agent = make_agent(seed, timesteps)
    rollout = agent.collector.collect(LENGTH * episodes // agent.config.num_envs)
    old = ExactProblem(agent.envs, next_logprobs(agent), prompts=range(PROMPTS))
    batch = prepare(agent, rollout)
    kls, rewards = [0.0], [old.reference.reward]
    for _ in range(steps):
        gradient_step(agent, batch, clip_coef)
        point = old.evaluate(next_logprobs(agent))
        kls.append(point.kl)
        rewards.append(point.reward)
    return np.array(kls), np.array(rewards)


def draw(curves: dict[str, tuple[np.ndarray, np.ndarray]], clip_coef: float, path: Path) -> None:
    """The clipped objective of one token; KL and reward over many steps on one batch."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
    ratio = torch.linspace(0.4, 1.8, 141)
    for colour, advantage in zip(COLOURS, (1.0, -1.0), strict=False):
        gain = [
            -ppo_policy_loss(x.log().view(1, 1), torch.zeros(1, 1), torch.full((1, 1), advantage), ONE, clip_coef).loss
            for x in ratio
        ]
        left.plot(ratio, torch.stack(gain), color=colour, label=f"advantage {advantage:+.0f}")
    left.axvspan(1 - clip_coef, 1 + clip_coef, color="0.92", zorder=0)
    left.set(xlabel="ratio π / π_old", ylabel="objective of one token")
    left.legend(frameon=False, fontsize=8)
    for colour, (name, (kls, rewards)) in zip(COLOURS, curves.items(), strict=False):
        middle.plot(kls, color=colour, label=name)
        right.plot(rewards, color=colour, label=name)
    middle.set(xlabel="gradient steps on one batch", ylabel="exact KL from the policy that wrote it")
    right.set(xlabel="gradient steps on one batch", ylabel="exact expected score")
    right.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


ONE = torch.ones(1, 1, dtype=torch.bool)


def main(args: Args) -> None:
    """Learn a little, take one update apart, compare with and without clipping."""
    torch.set_num_threads(1)
    smoke = args.preset == "smoke"
    timesteps, steps, episodes = (480, 3, 16) if smoke else (3_840, 40, 64)
    agent = make_agent(args.seed, timesteps)
    config, clip_coef = agent.config, agent.config.clip_coef
    batch = prepare(agent, agent.collector.collect(LENGTH))
    first = gradient_step(agent, batch, clip_coef)
    with torch.no_grad():
        new = agent.policy.evaluate(batch.rows, batch.lengths).logprobs
    after = ppo_policy_loss(new, batch.logprobs, batch.whitened, batch.mask, clip_coef)
    console = Console(width=150)
    console.print(token_table(agent, batch, (new - batch.logprobs).exp(), 3))
    explain(console, batch, first, after, clip_coef, config)

    curves = {
        name: many_steps(args.seed, timesteps, clip, steps, episodes)
        for name, clip in ((f"clipped at {clip_coef}", clip_coef), ("not clipped", NO_CLIPPING))
    }
    for name, (kls, rewards) in curves.items():
        console.print(
            f"{steps} steps on one batch, {name}: KL {kls[-1]:.2f} nats, expected score "
            f"{rewards[0]:.3f} → {rewards[-1]:.3f}, at best {rewards.max():.3f}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    draw(curves, clip_coef, args.out / "ppo_update.png")
    print(f"written: {args.out / 'ppo_update.png'}")


if __name__ == "__main__":
    main(tyro.cli(Args))
