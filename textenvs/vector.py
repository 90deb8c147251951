"""TextVectorEnv: many texts at once, a ``gymnasium.vector.VectorEnv`` whose work is done on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from textenvs.actions import check_actions, check_options, check_seed, read_options
from textenvs.engine import ALL, Rows, TextEngine, add_info, vector_info
from textenvs.env import check_render_mode, render_row
from textenvs.errors import unknown_name
from textenvs.rewards.base import Judge
from textenvs.spec import TextSpec
from textenvs.tasks import ENV_ARGUMENTS, Task, make_task


class TextVectorEnv(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N copies of a text environment, stepped together, on the same engine as :class:`~textenvs.env.TextEnv`.

    Sub-environment i, seeded with s, plays the very episodes of a ``TextEnv`` seeded with s + i. All texts that end in
    a step are scored in one call of the reward model. Infos have the shape that ``SyncVectorEnv`` gives them, ``_key``
    masks included; ``final_obs`` is a plain array [N, L], valid where ``_final_obs``.

    Args:
        task: name of a task, a task class, or a task object.
        num_envs: N.
        reward, invalid_reward, render_mode, info_text, task_arguments: as for ``TextEnv``.
        group_size: k, a divisor of N: sub-environment i draws its prompts from the stream of i // k, so that
            k consecutive sub-environments answer the same prompts.
        autoreset_mode: when a finished sub-environment begins its next episode; see Gymnasium's ``AutoresetMode``.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(
        self,
        task: str | Task | type[Task],
        num_envs: int = 1,
        *,
        reward: Any = None,
        invalid_reward: float | None = None,
        render_mode: str | None = None,
        info_text: bool = False,
        group_size: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **task_arguments: Any,
    ) -> None:
        self._engine = TextEngine(
            make_task(task, ENV_ARGUMENTS | {"group_size", "autoreset_mode"}, **task_arguments),
            reward,
            num_envs=num_envs,
            group_size=group_size,
            invalid_reward=invalid_reward,
        )
        spec = self._engine.spec
        self.num_envs = num_envs
        self.single_action_space = spaces.Discrete(spec.num_tokens)
        self.single_observation_space = spaces.MultiDiscrete(np.full(spec.row_length, spec.num_tokens + 1))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.autoreset_mode = _read_autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = check_render_mode(render_mode)
        self.info_text = info_text
        self._over = np.zeros(num_envs, dtype=np.bool_)
        """Sub-environments whose episode is over and whose next one has not begun (never any in SAME_STEP mode)."""
        self._needs_reset = True
        """Before the first reset, and after a step that the reward model did not let finish."""
        self._last_scores = np.full(num_envs, np.nan)

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
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every sub-environment, or in those of ``options["reset_mask"]``.

        Args:
            seed: s for s, s + 1, … or one entry for each (None: go on with its seed).
            options: ``prompt`` or ``index`` with one entry for each sub-environment; in DISABLED mode also
                ``reset_mask``, bool [N] (those outside it go on, and their entries are not read).

        Raises:
            ValueError, TypeError: seeds, prompts or a mask that do not fit; the environment is as it was before.
        """
        options = check_options(options)
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if "reset_mask" in options:
            mask = self._check_reset_mask(options.pop("reset_mask"))
        rows = ALL if mask.all() else np.flatnonzero(mask)
        chosen = read_options(options, self.task, self.num_envs, ("prompt", "index", "reset_mask"), rows)
        seeds = self._read_seeds(seed)
        self._apply_seeds(seeds, mask)
        self._engine.begin(rows, prompts=chosen.prompts, index=chosen.index)
        self._over[rows] = False
        self._needs_reset = False
        self._last_scores[rows] = np.nan
        info: dict[str, Any] = {}
        self._add_begin_info(info, rows, mask)
        self._add_masks(info, mask)
        return self._engine.rows.copy(), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Write one token in every sub-environment.

        Args:
            actions: integers [N] in 0 … V − 1. In NEXT_STEP mode those of finished sub-environments are ignored.

        Returns:
            Observations int64 [N, L], rewards float64 [N], terminations and truncations bool [N], infos.

        Raises:
            ResetNeeded: before the first reset; in DISABLED mode, when a finished sub-environment was not reset.
            InvalidAction: wrong shape, dtype or range; the environment is as it was before.
            RewardError: the reward model failed; all sub-environments must be reset.
        """
        waiting = self._check_ready()
        if waiting is None:
            actions = check_actions(actions, self.num_envs, self.text_spec.num_tokens)
            ended_rows, ended = self._engine.write(actions)
        else:
            actions = check_actions(actions, self.num_envs, self.text_spec.num_tokens, ~waiting)
            reset_rows, active_rows = np.flatnonzero(waiting), np.flatnonzero(~waiting)
            self._engine.begin(reset_rows)
            self._last_scores[reset_rows] = np.nan
            ended_rows, ended = self._engine.write(actions[active_rows], active_rows)

        rewards = np.zeros(self.num_envs)
        info: dict[str, Any] = {}
        if isinstance(ended_rows, slice) or ended_rows.size:
            self._needs_reset = True  # texts that ended without a score cannot go on
            outcome = self._engine.finish(ended_rows)
            self._needs_reset = False
            rewards[ended_rows] = outcome.reward
            final_info = vector_info(outcome, ended_rows, ended, self.info_text)
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                self._add_masks(final_info, ended)
                info["final_obs"], info["_final_obs"] = self._engine.rows.copy(), ended.copy()
                info["final_info"], info["_final_info"] = final_info, ended.copy()
                self._engine.begin(ended_rows)
                self._add_begin_info(info, ended_rows, ended)
            else:
                info.update(final_info)
                self._last_scores[ended] = final_info["score"][ended] if "score" in final_info else np.nan
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over = ended.copy()
            if waiting is not None:
                self._add_begin_info(info, reset_rows, waiting)
        self._add_masks(info, np.ones(self.num_envs, dtype=np.bool_))
        return self._engine.rows.copy(), rewards, ended, np.zeros(self.num_envs, dtype=np.bool_), info

    def action_masks(self) -> np.ndarray:
        """Legal actions bool [N, V] in the present states."""
        masks = self._engine.masks
        if masks is None:
            return np.ones((self.num_envs, self.text_spec.num_tokens), dtype=np.bool_)
        return masks.copy()

    def set_reward(self, reward: Any) -> None:
        """Judge with another reward model from the next finished text on."""
        self._engine.set_reward(reward)

    def render(self) -> tuple[str, ...] | None:
        """The texts so far; a finished episode shows its score (in SAME_STEP mode it is gone by then)."""
        if self.render_mode is None:
            gym.logger.warn("render() without a render mode: make the environment with render_mode='ansi'.")
            return None
        scores = [None if np.isnan(score) else float(score) for score in self._last_scores]
        return tuple(render_row(self._engine, i, scores[i]) for i in range(self.num_envs))

    def get_state(self) -> dict[str, np.ndarray]:
        """Arrays from which :meth:`set_state` goes on exactly."""
        if self._needs_reset:
            raise ValueError("There is no state yet: reset the environment first.")
        return {**self._engine.get_state(), "over": self._over.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state of :meth:`get_state`.

        Raises:
            ValueError: it belongs to an environment of other sizes.
        """
        self._engine.set_state(state)
        self._over = state["over"].astype(np.bool_)
        self._needs_reset = False
        self._last_scores[:] = np.nan

    # ------------------------------------------------------------------------------------------------- details

    def _check_ready(self) -> np.ndarray | None:
        """Sub-environments that this step resets instead of stepping, bool [N]; None if there are none."""
        if self._needs_reset:
            raise ResetNeeded("Call reset() before step(): there was none yet, or the reward model failed since.")
        if not self._over.any():
            return None
        if self.autoreset_mode == AutoresetMode.DISABLED:
            finished = np.flatnonzero(self._over).tolist()
            raise ResetNeeded(
                f"Autoreset is disabled and the episodes of sub-environments {finished[:8]} are over: "
                f"call reset(options={{'reset_mask': …}}) before step()."
            )
        return self._over

    def _add_begin_info(self, info: dict[str, Any], rows: Rows, present: np.ndarray) -> None:
        if self.info_text:
            prompt_ids = self._engine.rows[rows][:, : self.text_spec.prompt_length]
            prompts = np.array(self.task.vocab.decode_rows(prompt_ids), dtype=object)
            if "prompt" in info:  # beside texts that ended in this step
                info["prompt"][rows], info["_prompt"][rows] = prompts, True
            else:
                add_info(info, "prompt", prompts, rows, present)

    def _add_masks(self, info: dict[str, Any], present: np.ndarray) -> None:
        masks = self._engine.masks
        if masks is not None and present.all():
            info["action_mask"], info["_action_mask"] = masks.astype(np.int8), present.copy()
        elif masks is not None:
            add_info(info, "action_mask", masks[present].astype(np.int8), present, present)

    def _check_reset_mask(self, mask: Any) -> np.ndarray:
        if self.autoreset_mode != AutoresetMode.DISABLED:
            raise ValueError(
                f"options['reset_mask'] is for autoreset_mode=AutoresetMode.DISABLED; this environment resets finished "
                f"sub-environments by itself ({self.autoreset_mode})."
            )
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] must be a NumPy array of bool, got {mask!r:.100}.")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must have shape ({self.num_envs},) with at least one True, got {mask!r:.100}."
            )
        if self._needs_reset and not mask.all():
            raise ValueError(
                "The first reset, and the one after a failed reward model, begins every sub-environment: "
                "call it without 'reset_mask'."
            )
        return mask

    def _read_seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [check_seed(seed) + i for i in range(self.num_envs)]
        if isinstance(seed, str) or not hasattr(seed, "__len__") or len(seed) != self.num_envs:
            raise ValueError(f"Seeds must be one integer or {self.num_envs} entries, got {seed!r:.200}.")
        return [None if one is None else check_seed(one) for one in seed]

    def _apply_seeds(self, seeds: list[int | None], mask: np.ndarray) -> None:
        if self._engine.seeds is None:
            drawn = np.random.SeedSequence().generate_state(self.num_envs, dtype=np.uint64)
            self._engine.seed([int(one) for one in drawn])
        given = np.array([one is not None for one in seeds]) & mask
        if given.any():
            self._engine.seed([seeds[i] or 0 for i in np.flatnonzero(given)], np.flatnonzero(given))


def _read_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = [known.value for known in AutoresetMode]
        raise ValueError(unknown_name("autoreset_mode", mode, known)) from None
