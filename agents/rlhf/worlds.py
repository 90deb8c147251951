"""Where texts come from and who judges them: TinyReviews, where everything is known, or prompts of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

import textenvs
from agents.base import find_text_spec
from agents.lm.loading import import_transformers
from agents.lm.models import max_positions
from agents.lm.sft import Corpus, encode_rows
from agents.rlhf.settings import RLHFError, Sources
from textenvs import Episodes
from textenvs.prompt_rows import read_prompts
from textenvs.rewards.base import Judge
from textenvs.tiny_reviews import load_grammar
from textenvs.tokenizers import load_tokenizer, word_tokenizer


class World(Protocol):
    """Environments on train and on held-out prompts, and what is known of the texts."""

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer of its models."""
        ...

    def envs(self, split: str, num_envs: int, reward: Any = None, group_size: int = 1) -> VectorEnv:
        """A vector environment; ``reward=None`` is the gold judge."""
        ...

    def demonstrations(self, count: int, seed: int) -> Corpus | None:
        """Texts to fine-tune on."""
        ...

    def paid_reward(self, folder: Path) -> Any:
        """The spec of the judge that PPO is paid by, in the pipeline in ``folder``."""
        ...

    @property
    def gold_reward(self) -> Any:
        """The spec of the judge that is meant; None where only the one that is paid is known."""
        ...

    def gold(self, episodes: Episodes) -> np.ndarray | None:
        """Its scores float32 [B]."""
        ...

    def grammatical(self, episodes: Episodes) -> np.ndarray | None:
        """Whether each text is part of the language, bool [B]; None where nobody knows."""
        ...


class TinyReviewsWorld:
    """The small language with a known grammar. Held-out prompts are of kinds that RL never sees."""

    env_id = "textenvs/TinyReviews-v0"
    gold_reward: Any = {"name": "lexicon_sentiment", "of": "text"}

    def __init__(self, max_new_tokens: int = 24) -> None:
        self.grammar = load_grammar()
        self.max_new_tokens = max_new_tokens
        self._judge = Judge(textenvs.make_reward(self.gold_reward))

    @cached_property
    def tokenizer(self) -> Any:
        """Its words as a fast tokenizer, to be saved beside models."""
        return word_tokenizer(self.grammar.vocab)

    def envs(self, split: str, num_envs: int, reward: Any = None, group_size: int = 1) -> VectorEnv:
        return gym.make_vec(
            self.env_id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            split=split,
            max_new_tokens=self.max_new_tokens,
            group_size=group_size,
            reward=self.gold_reward if reward is None else reward,
        )

    def paid_reward(self, folder: Path) -> Any:
        return f"learned:{folder / 'reward-model' / 'model'}"

    def corpus(self, count: int, seed: int) -> Corpus:
        """Reviews to pretrain on, of all kinds and sentiments."""
        reviews = self.grammar.sample(count, seed=seed)
        return Corpus(reviews.ids, reviews.lengths, np.zeros(len(reviews), dtype=np.int64))

    def demonstrations(self, count: int, seed: int) -> Corpus | None:
        return encode_rows(self.grammar.demonstrations(count, seed=seed), self.grammar.vocab)

    def gold(self, episodes: Episodes) -> np.ndarray | None:
        return self._judge(episodes).total

    def grammatical(self, episodes: Episodes) -> np.ndarray | None:
        return self.grammar.grammatical(np.concatenate([episodes.prompt_ids, episodes.completion_ids], axis=1))

    def best_texts(self, count: int = 20_000, seed: int = 0, quantile: float = 0.99) -> float:
        """A quantile of the gold scores of the grammar's own texts: about the best that it writes by itself."""
        reviews = self.grammar.sample(count, seed=seed)
        texts = Episodes.from_texts([""] * count, reviews.texts)
        return float(np.quantile(self._judge(texts).total, quantile))


class PromptWorld:
    """Prompts of one's own, read by a real tokenizer; a hash of each text decides whether it is held out.

    Raises:
        RLHFError: prompts, tokenizer or judges that cannot be had; says which and why.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.gold_reward = sources.gold
        assert sources.model is not None
        try:
            self.tokenizer = load_tokenizer(sources.model)
            if self.tokenizer.eos_token_id is None:
                raise ValueError(f"The tokenizer of {sources.model!r} has no EOS token: set tokenizer.eos_token.")
            self._prompts = read_prompts(_prompts_of(sources.prompts))
            self._judge = None if sources.gold is None else Judge(textenvs.make_reward(sources.gold))
            # What does not fit shows here, before anything is trained.
            spec = find_text_spec(self.envs("test", 1))
            allowed = max_positions(import_transformers().AutoConfig.from_pretrained(sources.model))
            if spec.row_length > allowed:
                raise ValueError(
                    f"{sources.model} reads at most {allowed} tokens; prompts of {spec.prompt_length} and texts of "
                    f"{spec.max_new_tokens} tokens can have {spec.row_length}. Give a smaller --prompt-length or "
                    f"--max-new-tokens."
                )
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise RLHFError(str(error)) from error

    def envs(self, split: str, num_envs: int, reward: Any = None, group_size: int = 1) -> VectorEnv:
        envs = textenvs.from_prompts(
            self._prompts,
            self.tokenizer,
            reward=reward_spec(self.sources.reward) if reward is None else reward,
            max_new_tokens=self.sources.max_new_tokens,
            prompt_length=self.sources.prompt_length,
            on_long="error" if self.sources.prompt_length is None else "truncate",
            num_envs=num_envs,
            split=split,
            group_size=group_size,
        )
        return envs

    def paid_reward(self, folder: Path) -> Any:
        return reward_spec(self.sources.reward)

    def demonstrations(self, count: int, seed: int) -> Corpus | None:
        if self.sources.demonstrations is None:
            return None
        table = read_prompts(self.sources.demonstrations)
        if "completion" not in table.columns:
            raise RLHFError(f"{self.sources.demonstrations} has no column 'completion' to learn from.")
        rows = [
            {"prompt": prompt, "completion": completion}
            for prompt, completion in zip(table.prompts, table.columns["completion"], strict=True)
        ]
        return encode_rows(rows, self.tokenizer)

    def gold(self, episodes: Episodes) -> np.ndarray | None:
        return None if self._judge is None else self._judge(episodes).total

    def grammatical(self, episodes: Episodes) -> np.ndarray | None:
        return None


def make_world(sources: Sources) -> World:
    """The world that these sources describe.

    Raises:
        RLHFError: something in them does not exist or does not fit.
    """
    return TinyReviewsWorld(sources.max_new_tokens) if sources.is_tiny else PromptWorld(sources)


def reward_spec(reward: Any) -> Any:
    """A judge from what the command line names: a folder or hub name of a classifier, of a reward model that was
    trained here, or any form of ``reward=``."""
    if isinstance(reward, str):
        folder = Path(reward)
        if (folder / "reward_model.json").is_file():
            return f"learned:{reward}"
        known = textenvs.list_rewards()
        if reward.partition(":")[0] not in known and ":" not in reward:
            return {"name": "hf_classifier", "model": reward, "of": "text"}
    return reward


def _prompts_of(source: Any) -> Any:
    """JSONL files are read by textenvs; anything else is a data set of the hub, or one saved to a folder."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return source
    path = Path(str(source))
    if path.is_file():
        return path
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(
            f"{source!r} is no file, and data sets of the hub need the datasets package: install the extra, e.g. "
            f"pip install 'textenvs[datasets]'."
        ) from error
    try:
        if path.is_dir():
            data = datasets.load_from_disk(str(path))
            return data["train"] if isinstance(data, datasets.DatasetDict) else data
        return datasets.load_dataset(str(source), split="train")
    except Exception as error:
        raise ValueError(
            f"Cannot read the prompts {source!r}: it is no file, no saved data set, and the hub has none of that name "
            f"or cannot be reached. ({str(error).splitlines()[0]})"
        ) from error
