"""Language models' speed: rollouts against transformers' ``generate``, and what continuous decoding saves.

The models have random weights in the shapes of GPT-2. Whoever generates for us goes through an environment, token by
token, as in training: ``env.step``, the policy's ``act_with_values`` (sampling, log-probabilities, values) and the
collector that keeps what PPO needs. ``generate`` does none of that; it samples from the whole distribution (no top-k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import textenvs
from agents.benchmark.speed import Comparison, compare, geometric_mean, measured
from agents.collect import Collector
from agents.lm import LMActorCritic
from agents.networks import TransformerConfig
from agents.policies import TransformerPolicy
from textenvs.tasks.dataset import PromptTask


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    num_layers: int
    width: int
    num_tokens: int
    head_width: int = 32

    @property
    def num_heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_width

    def __str__(self) -> str:
        return f"{self.num_layers} layers, {self.width} wide, {self.num_tokens:,} words"


@dataclass(frozen=True)
class LMPreset:
    """How much is measured of language models."""

    shapes: tuple[Shape, ...]
    """Smallest first; the small transformer and the texts that end at different times use the first two."""
    batches: tuple[int, ...]
    """Sub-environments, or rows of ``generate``."""
    prompt_length: int
    new_tokens: int
    mean_length: int
    """Of the texts that end at different times."""
    rounds: int
    seconds: float
    """The least that a turn takes."""
    update_episodes: int
    """Texts in an update."""
    update_rounds: int


FULL = LMPreset(
    shapes=(Shape(2, 64, 256), Shape(4, 128, 1_024), Shape(6, 256, 4_096)),
    batches=(32, 128),
    prompt_length=16,
    new_tokens=48,
    mean_length=15,
    rounds=7,
    seconds=0.3,
    update_episodes=64,
    update_rounds=5,
)
SMOKE = LMPreset(
    shapes=(Shape(1, 32, 64), Shape(1, 32, 96)),
    batches=(4,),
    prompt_length=4,
    new_tokens=6,
    mean_length=3,
    rounds=1,
    seconds=0.0,
    update_episodes=4,
    update_rounds=1,
)


# ------------------------------------------------------------------------------------------------- who takes part


def make_model(shape: Shape, context: int, **options: Any) -> Any:
    """A GPT-2 with random weights, the same ones every time.

    Args:
        context: tokens that it can read.
        **options: of ``GPT2Config``.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": shape.num_layers, "n_embd": shape.width, "n_head": shape.num_heads, "n_positions": context}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=shape.num_tokens, **{**sizes, **special, **options}))
    return model.eval()


def make_words(num_tokens: int) -> list[str]:
    """A vocabulary."""
    return [f"w{i}" for i in range(num_tokens)]


def make_tokenizer(words: list[str], eos: str) -> Any:
    """A fast tokenizer of whole words between spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    level = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=level, eos_token=eos, padding_side="left")


def make_prompts(num_tokens: int, prompt_length: int, first: int = 0, count: int = 256) -> list[str]:
    """Prompts of ``prompt_length`` random words, from the ``first`` on."""
    rows = np.random.default_rng(0).integers(first, num_tokens, (count, prompt_length))
    return [" ".join(f"w{i}" for i in row) for row in rows]


def share_of_different(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that costs next to nothing, in TRL's signature: the share of words that are used once."""
    return [len(set(ids)) / len(ids) for ids in completion_ids]


def fixed_length_envs(shape: Shape, num_envs: int, prompt_length: int, new_tokens: int) -> Any:
    """Texts that all have ``new_tokens`` words: the vocabulary has no EOS."""
    prompts = make_prompts(shape.num_tokens, prompt_length)
    task = PromptTask(prompts, textenvs.Vocab(make_words(shape.num_tokens)), new_tokens)
    return textenvs.TextVectorEnv(task, num_envs, reward=share_of_different)


def eos_ids(num_tokens: int, mean_length: int) -> tuple[int, ...]:
    """As many EOS tokens as make texts of random words end after ``mean_length`` on average, had they no limit."""
    return tuple(range(max(1, round(num_tokens / mean_length))))


def rollouts(policy: Any, envs: Any, new_tokens: int) -> Callable[[], float]:
    """A rollout of ``new_tokens`` steps under weights that have just changed, which returns its tokens."""
    policy.bind(envs.text_spec, 0)
    collector = Collector(envs, envs.text_spec, getattr(policy, "act_with_values", policy.act))
    collector.reset(0)

    def roll_out() -> float:
        policy.invalidate_cache()
        return float(collector.collect(new_tokens).timesteps)

    return roll_out


def generation(model: Any, rows: int, prompt_length: int, new_tokens: int, ends: tuple[int, ...] = ()) -> Any:
    """A call of transformers' ``generate``, which returns the tokens [rows, new_tokens or fewer].

    Args:
        ends: EOS ids; a row that has ended is padded until all have.
    """
    from transformers import GenerationConfig

    size, device = model.config.vocab_size, model.device
    prompts = torch.randint(len(ends), size, (rows, prompt_length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": prompts.to(device), "attention_mask": torch.ones_like(prompts, device=device)}
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": new_tokens, "pad_token_id": size - 1}
    config = GenerationConfig(**settings, eos_token_id=list(ends) or None)
    return lambda: model.generate(**inputs, generation_config=config)[:, prompt_length:]


# ------------------------------------------------------------------------------------------------- sections


def lm_rollouts(preset: LMPreset) -> list[Comparison]:
    """Rollouts of a GPT-2 through the environment loop, log-probabilities and values included."""
    return _rollouts("rollouts of language models", preset, preset.shapes, _language_model, each=1.0, mean=1.15)


def small_rollouts(preset: LMPreset) -> list[Comparison]:
    """Rollouts of our small transformer, log-probabilities included (its values are computed in the update), beside
    ``generate`` of a GPT-2 of the same shape."""
    return _rollouts("rollouts of the small transformer", preset, preset.shapes[:2], _small, each=None, mean=2.0)


def _language_model(shape: Shape, preset: LMPreset) -> Any:
    return LMActorCritic(make_model(shape, preset.prompt_length + preset.new_tokens))


def _small(shape: Shape, preset: LMPreset) -> Any:
    sizes = TransformerConfig(shape.num_layers, shape.width, shape.num_heads)
    return TransformerPolicy(shape.num_tokens, preset.prompt_length, preset.new_tokens, sizes)


def _rollouts(
    section: str,
    preset: LMPreset,
    shapes: tuple[Shape, ...],
    make_policy: Callable[[Shape, LMPreset], Any],
    each: float | None,
    mean: float,
) -> list[Comparison]:
    comparisons = []
    prompt_length, new_tokens = preset.prompt_length, preset.new_tokens
    for shape in shapes:
        for rows in preset.batches:
            envs = fixed_length_envs(shape, rows, prompt_length, new_tokens)
            roll_out = rollouts(make_policy(shape, preset), envs, new_tokens)
            generate = generation(make_model(shape, prompt_length + new_tokens), rows, prompt_length, new_tokens)
            comparisons.append(
                compare(
                    section,
                    f"{shape}; {rows} sub-environments, {prompt_length} + {new_tokens} tokens",
                    "generate",
                    "tokens/s",
                    measured(roll_out, preset.seconds),
                    measured(partial(count, generate), preset.seconds),
                    preset.rounds,
                    each,
                )
            )
    return [*comparisons, geometric_mean("geometric mean", comparisons, mean)]


def lm_continuous(preset: LMPreset) -> list[Comparison]:
    """Texts that end at different times: useful tokens per second of rollouts in which the next text begins where one
    has ended, against lockstep (all texts begin together, and the next ones when the last has ended) by the same
    policy and environment, and against ``generate``, which does the same and stops early too."""
    section = "texts that end at different times"
    comparisons = []
    prompt_length, new_tokens = preset.prompt_length, preset.new_tokens
    for shape in preset.shapes[:2]:
        ends = eos_ids(shape.num_tokens, preset.mean_length)
        for rows in preset.batches:
            continuous = Continuous(shape, rows, preset, ends)
            lockstep = Lockstep(shape, rows, preset, ends)
            generate = generation(make_model(shape, prompt_length + new_tokens), rows, prompt_length, new_tokens, ends)
            peers: list[tuple[str, Callable[[], float], float | None]] = [
                ("lockstep by the same policy", lockstep, 1.5),
                ("generate", partial(count, generate, ends), None),
            ]
            for peer, work, bar in peers:
                ours, theirs = (measured(each, preset.seconds) for each in (continuous, work))
                what = f"{shape}; {rows} sub-environments"
                comparisons.append(compare(section, what, peer, "useful tokens/s", ours, theirs, preset.rounds, bar))
    return comparisons


class Continuous:
    """A rollout of texts that end at different times; only rows that have begun a text may be read as a whole."""

    def __init__(self, shape: Shape, rows: int, preset: LMPreset, ends: tuple[int, ...]) -> None:
        words = make_words(shape.num_tokens)
        prompts = make_prompts(shape.num_tokens, preset.prompt_length, len(ends))
        envs = textenvs.from_prompts(
            prompts,
            make_tokenizer(words, words[0]),
            reward=share_of_different,
            max_new_tokens=preset.new_tokens,
            num_envs=rows,
            eos_ids=ends,
        )
        self.policy, self.rows, self.steps = _language_model(shape, preset), rows, preset.new_tokens
        self.policy.bind(envs.text_spec, 0)
        self.collector = Collector(envs, envs.text_spec, self.policy.act_with_values)
        self.collector.reset(0)

    def __call__(self) -> float:
        """Play, and return the tokens written, all of which are useful.

        Raises:
            RuntimeError: more rows were read as a whole than those that began anew.
        """
        decoder = self.policy.rollout_decoder
        self.policy.invalidate_cache()
        before = decoder.prefilled_rows
        rollout = self.collector.collect(self.steps)
        # All rows at first; then each that follows a text that ended, unless it ended in the very last step.
        begun = self.rows + len(rollout) - int((self.collector.get_state()["lengths"] == 0).sum())
        if decoder.prefilled_rows - before != begun:
            raise RuntimeError(f"{decoder.prefilled_rows - before} rows were read as a whole, {begun} had begun anew.")
        return float(rollout.timesteps)


class Lockstep:
    """The same texts in step: rows whose text has ended go on until all have, and what they write is thrown away."""

    def __init__(self, shape: Shape, rows: int, preset: LMPreset, ends: tuple[int, ...]) -> None:
        self.envs = fixed_length_envs(shape, rows, preset.prompt_length, preset.new_tokens)
        self.policy, self.ends, self.new_tokens = _language_model(shape, preset), np.array(ends), preset.new_tokens
        self.policy.bind(self.envs.text_spec, 0)

    def __call__(self) -> float:
        """Play one text in every row, and return the useful tokens, EOS included."""
        obs, _ = self.envs.reset()
        open_, useful = np.ones(len(obs), dtype=np.bool_), 0
        for _ in range(self.new_tokens):
            actions, _, _ = self.policy.act_with_values(obs)
            useful += int(open_.sum())
            open_ &= ~np.isin(actions, self.ends)
            obs, *_ = self.envs.step(actions)
            if not open_.any():
                break
        self.policy.invalidate_cache()
        return float(useful)


def count(generate: Callable[[], torch.Tensor], ends: tuple[int, ...] = ()) -> float:
    """Tokens of a call of ``generate``, up to each row's first EOS, which counts."""
    tokens = generate()
    ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device)).cumsum(1) > 0
    return float((~ended).sum() + ended[:, -1].sum())
