"""Agents and policies as functions of observations, for :mod:`textenvs.exact`.

problem = ExactProblem(env, next_logprobs(reference))
problem.grade(next_logprobs(agent), beta=0.1)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textenvs.spec import TextSpec
from textenvs.text_tree import NextLogprobs


def next_logprobs(of: Any, spec: TextSpec | None = None) -> NextLogprobs:
    """What an agent samples from while it learns, as a function from observations [B, L] to log-probabilities [B, V].

    It reads the weights at the time when it is called. A language model answers at its temperature.

    Args:
        of: an agent (``PPO``, ``SoftQ``, …) or a policy (``TransformerPolicy``, ``LMActorCritic``).
        spec: ``text_spec`` of the environment, for a policy that is not bound to one yet.

    Raises:
        TypeError: it has no ``next_logprobs`` of its own: an agent that samples from no distribution over tokens.
        ValueError: a policy without ``spec``, or for another environment.
    """
    policy = getattr(of, "policy", None) or of
    if not hasattr(policy, "next_logprobs"):
        raise TypeError(
            f"{type(of).__name__} has no next_logprobs(rows, written, action_masks), the distribution that it samples "
            f"from; agents with a transformer or a language model have."
        )
    found = getattr(of, "text_spec", None) or spec or getattr(policy, "_spec", None)
    if found is None:
        raise ValueError("Pass spec=, the text_spec of the environment: a policy alone does not say it.")
    if policy is of and spec is not None and hasattr(policy, "bind"):
        policy.bind(spec)  # refuses another environment
    device, prompt_length, pad_id = policy.device, found.prompt_length, found.pad_id

    def function(rows: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        written = int((rows[0, prompt_length:] != pad_id).sum())
        action_masks = None if masks is None else torch.from_numpy(masks).to(device)
        answer: torch.Tensor = policy.next_logprobs(torch.from_numpy(rows).to(device), written, action_masks)
        return answer.double().cpu().numpy()

    return function
