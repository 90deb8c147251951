"""TRL's RLOOTrainer, as the peer that an update of a language model by our PPO is measured against."""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agents import PPO, LMActorCritic
from agents.benchmark.lm_speed import (
    LMPreset,
    Shape,
    fixed_length_envs,
    make_model,
    make_prompts,
    make_tokenizer,
    make_words,
    share_of_different,
)
from agents.benchmark.speed import Comparison, compare, measured

KL_COEF = 0.05  # RLOOTrainer's default


def lm_update(preset: LMPreset) -> list[Comparison]:
    """One update of a language model: our PPO beside TRL's RLOOTrainer.

    The same GPT-2 in float32, as many texts of as many tokens, one optimiser step over all of them at once, a
    reference model, the same reward function and KL coefficient. Each computes what its algorithm needs. PPO: a rollout
    with log-probabilities and values, a pass of the reference, one pass forward and back for policy and values.
    RLOOTrainer: ``generate`` (two answers to a prompt), a pass of the policy, one of the reference, one forward and
    back for the policy.
    """
    import trl

    comparisons = []
    for shape in preset.shapes:
        with tempfile.TemporaryDirectory() as folder:
            trainer = RLOO(shape, preset, Path(folder))
            comparisons.append(
                compare(
                    "updates of language models",
                    f"{shape}; {preset.update_episodes} texts, {preset.prompt_length} + {preset.new_tokens} tokens",
                    f"RLOOTrainer of TRL {trl.__version__}",
                    "samples/s",
                    measured(ppo_update(shape, preset), preset.seconds),
                    trainer.samples_per_second,
                    preset.update_rounds,
                    bar=1.6,
                )
            )
    return comparisons


def ppo_update(shape: Shape, preset: LMPreset) -> Callable[[], float]:
    """A rollout and an update of our PPO, which returns the number of texts."""
    policy = LMActorCritic(make_model(shape, preset.prompt_length + preset.new_tokens))
    envs = fixed_length_envs(shape, preset.update_episodes, preset.prompt_length, preset.new_tokens)
    options = {"kl_coef": KL_COEF, "epochs": 1, "num_minibatches": 1, "target_kl": None}
    agent = PPO(envs, policy=policy, reference=policy.frozen_copy(), **options)

    def update() -> float:
        before = agent.num_timesteps
        agent.learn(preset.update_episodes * preset.new_tokens)
        return (agent.num_timesteps - before) / preset.new_tokens

    return update


class RLOO:
    """TRL's trainer with its defaults, but for: the sizes; float32 and no gradient checkpointing, as ours; no dropout;
    no reports, progress bars or checkpoints.

    Args:
        folder: for the model, which TRL loads the reference from.
    """

    def __init__(self, shape: Shape, preset: LMPreset, folder: Path) -> None:
        from datasets import Dataset  # type: ignore[import-untyped]
        from transformers import PrinterCallback, TrainerCallback
        from trl import RLOOConfig, RLOOTrainer  # type: ignore[attr-defined]

        self.episodes, self.steps = preset.update_episodes, 2
        # The model cannot write EOS, so all texts have the same length.
        tokenizer = make_tokenizer([*make_words(shape.num_tokens), "<eos>"], "<eos>")
        prompts = make_prompts(shape.num_tokens, preset.prompt_length)
        stamps = self.stamps = list[float]()
        reward: Any = share_of_different

        class Stamp(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                stamps.append(time.process_time())

        with quiet():
            make_model(shape, preset.prompt_length + preset.new_tokens).save_pretrained(folder)
            arguments = RLOOConfig(
                output_dir=str(folder / "out"),
                per_device_train_batch_size=preset.update_episodes,
                max_completion_length=preset.new_tokens,
                beta=KL_COEF,
                bf16=False,
                gradient_checkpointing=False,
                disable_dropout=True,
                max_steps=self.steps + 1,  # the first one, which sets things up, is not counted
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            )
            self.trainer: Any = RLOOTrainer(
                model=str(folder),
                reward_funcs=reward,
                args=arguments,
                train_dataset=Dataset.from_dict({"prompt": prompts}),
                processing_class=tokenizer,
                callbacks=[Stamp()],
            )
        self.trainer.remove_callback(PrinterCallback)

    def samples_per_second(self) -> float:
        """Texts per second of the processor, over two steps, from the end of the one before them."""
        self.stamps.clear()
        with quiet():
            self.trainer.train()
        return self.steps * self.episodes / (self.stamps[-1] - self.stamps[0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and hints, and without warnings about names of arguments, on which TRL and
    transformers do not agree."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
