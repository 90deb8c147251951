"""TextEnv: one text at a time, a ``gymnasium.Env``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from textenvs.actions import check_action, check_options, check_seed, read_options
from textenvs.engine import ALL, TextEngine, scalar_info
from textenvs.rewards.base import Judge
from textenvs.spec import TextSpec
from textenvs.tasks import Task, make_task


class TextEnv(gym.Env[np.ndarray, np.int64]):
    """Writing is an episode: every token is an action, and a reward model scores the finished text.

    * Action: ``Discrete(V)``, the next token.
    * Observation: ``MultiDiscrete([V + 1] * (P + T))``, int64: the prompt, left-padded, then what has been
      written, then padding. Padding is the id V.
    * Reward: 0 until the end, then the score, once.
    * Episode end: EOS or the length budget, both ``terminated``; an illegal action too, with ``invalid_reward``.
    * ``info`` at the end: ``score``, ``reward_components``, ``gold_score`` (where there is a gold reward), ``length``,
      ``finish_reason`` (``"stop"``, ``"length"`` or ``"invalid"``), ``key`` and ``prompt_index`` (with which the
      text can be judged again). An invalid text has no score.

    Args:
        task: name of a task, a task class, or a task object.
        reward: the judge, in any form that :func:`textenvs.make_reward` takes; default the task's own.
        invalid_reward: reward of a text that an illegal action ended; default the reward model's lower bound.
        render_mode: ``"ansi"`` or None.
        info_text: whether infos carry ``prompt`` (at reset and at the end) and ``completion`` (at the end) as text.
        task_arguments: sizes of the task, ``split``, ``task_seed``.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(
        self,
        task: str | Task | type[Task],
        *,
        reward: Any = None,
        invalid_reward: float | None = None,
        render_mode: str | None = None,
        info_text: bool = False,
        **task_arguments: Any,
    ) -> None:
        self._engine = TextEngine(make_task(task, **task_arguments), reward, num_envs=1, invalid_reward=invalid_reward)
        spec = self._engine.spec
        self.action_space = spaces.Discrete(spec.num_tokens)
        self.observation_space = spaces.MultiDiscrete(np.full(spec.row_length, spec.num_tokens + 1))
        self.render_mode = check_render_mode(render_mode)
        self.info_text = info_text
        self._num_tokens = spec.num_tokens
        self._over = True
        self._last_score: float | None = None

    @property
    def text_spec(self) -> TextSpec:
        """Sizes, EOS and vocabulary: all that an agent needs to know."""
        return self._engine.spec

    @property
    def task(self) -> Task:
        """What is to be written."""
        return self._engine.task

    @property
    def judge(self) -> Judge:
        """The reward model behind its guard, which counts calls, texts and seconds."""
        return self._engine.judge

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: number 0 of ``seed``, or the next one of the seed that was given before.

        Args:
            seed: non-negative integer. Without any, the first reset draws one from the operating system.
            options: ``prompt`` (text or ids) or ``index`` (a row of the prompt set).

        Raises:
            ValueError, TypeError: an unknown option or an impossible prompt; the environment is as it was before.
        """
        given = {name: [value] for name, value in check_options(options).items()} if options is not None else {}
        chosen = read_options(given, self.task, 1, ("prompt", "index"))
        if seed is not None:
            seed = check_seed(seed)
        super().reset(seed=seed)
        if seed is not None:
            self._engine.seed([seed])
        elif self._engine.seeds is None:
            self._engine.seed([int(self.np_random.integers(2**63))])
        self._engine.begin(prompts=chosen.prompts, index=chosen.index)
        self._over, self._last_score = False, None
        info: dict[str, Any] = {}
        if self.info_text:
            info["prompt"] = self.task.vocab.decode(self._engine.rows[0, : self.text_spec.prompt_length].tolist())
        self._add_mask(info)
        return self._engine.rows[0].copy(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Write one token.

        Raises:
            ResetNeeded: before the first reset, or after the end of the episode.
            InvalidAction: not an integer in 0 … V − 1; the environment is as it was before.
            RewardError: the reward model failed.
        """
        if self._over:
            raise ResetNeeded("The episode is over, or has not begun: call reset() before step().")
        info: dict[str, Any] = {}
        reward = 0.0
        if self._engine.append(check_action(action, self._num_tokens), 0):
            self._over = True
            outcome = self._engine.finish(ALL)
            reward = float(outcome.reward[0])
            info = scalar_info(outcome, self.info_text)
            self._last_score = info.get("score")
        self._add_mask(info)
        return self._engine.rows[0].copy(), reward, self._over, False, info

    def action_masks(self) -> np.ndarray:
        """Legal actions bool [V] in the present state (sb3-contrib's convention)."""
        masks = self._engine.masks
        return np.ones(self.text_spec.num_tokens, dtype=np.bool_) if masks is None else masks[0].copy()

    def set_reward(self, reward: Any) -> None:
        """Judge with another reward model from the next finished text on."""
        self._engine.set_reward(reward)

    def render(self) -> str | None:
        """The text so far; a finished episode shows its score."""
        if self.render_mode is None:
            gym.logger.warn("render() without a render mode: make the environment with render_mode='ansi'.")
            return None
        return render_row(self._engine, 0, self._last_score)

    def get_state(self) -> dict[str, np.ndarray]:
        """Arrays from which :meth:`set_state` goes on exactly."""
        return {**self._engine.get_state(), "over": np.array([self._over])}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state of :meth:`get_state`.

        Raises:
            ValueError: it belongs to an environment of other sizes.
        """
        self._engine.set_state(state)
        self._over = bool(state["over"][0])
        self._last_score = None

    def _add_mask(self, info: dict[str, Any]) -> None:
        if self._engine.masks is not None:
            info["action_mask"] = self._engine.masks[0].astype(np.int8)


def check_render_mode(render_mode: str | None) -> str | None:
    """Return the render mode if there is such a one.

    Raises:
        TypeError: there is not. Stable-Baselines3 asks for ``"rgb_array"`` first and takes this error, and no other, as
            the sign to make the environment without one.
    """
    if render_mode not in (None, "ansi"):
        raise TypeError(f"render_mode must be None or 'ansi', got {render_mode!r}.")
    return render_mode


def render_row(engine: TextEngine, i: int, score: float | None) -> str:
    """One line: prompt, what has been written, and the score if there is one."""
    prompt_length = engine.spec.prompt_length
    vocab = engine.task.vocab
    prompt = vocab.decode(engine.rows[i, :prompt_length].tolist())
    completion = vocab.decode(engine.rows[i, prompt_length:].tolist())
    line = f"{prompt} → {completion}" if prompt_length else completion
    return line if score is None else f"{line}  [score {score:.3f}]"
