"""The logits of a whole batch never exist at once, for 512 texts of up to 64 tokens out of 50,257 words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import textenvs
from agents import PPO
from agents.lm import LMActorCritic, actor_critic

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

NUM_TEXTS, LENGTH, NUM_WORDS = 512, 64, 50_257
STEP = 4 * NUM_TEXTS * NUM_WORDS  # bytes of the logits of one step: 103 MB; of all of them: 6.6 GB
AT_ONCE = 2**21
PART = 4 * AT_ONCE  # bytes of the logits that may exist at once


class Memory(TorchDispatchMode):
    """Follows every tensor of at least 1 MiB that an operation returns, to the end of its life."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.peak = 0
        self._living: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        results = function(*arguments, **(options or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= 2**20:
                storage = result.untyped_storage()
                self._living = {key: each for key, each in self._living.items() if not each[0].expired()}
                self._living[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
                self.peak = max(self.peak, sum(size for _, size in self._living.values()))
        return results


def test_the_measuring_device() -> None:
    with Memory() as memory:
        kept = torch.zeros(2**20)
        for _ in range(5):
            torch.zeros(2**19) + 1
        small = torch.zeros(10)
    assert len(kept) > len(small)
    assert memory.largest == 4 * 2**20
    assert memory.peak == 8 * 2**20


@pytest.fixture
def make_agent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Half of all words end a text, so that there is little to compute; what is reserved would have its full size."""
    monkeypatch.setattr(actor_critic, "LOGITS_AT_ONCE", AT_ONCE)
    words = [f"w{i}" for i in range(NUM_WORDS)]
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=level, eos_token="w0")
    sizes = {"n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": LENGTH + 1}
    special = {"bos_token_id": None, "eos_token_id": None}

    def make(**config: Any) -> PPO:
        envs = textenvs.from_prompts(
            [f"w{i}" for i in range(30_000, 30_064)],
            tokenizer,
            reward=lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids],
            max_new_tokens=LENGTH,
            num_envs=NUM_TEXTS,
            eos_ids=range(NUM_WORDS // 2),
        )
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=NUM_WORDS, **sizes, **special))
        policy = LMActorCritic(model)
        options = {"kl_coef": 0.1, "epochs": 1, "num_minibatches": 1}
        return PPO(envs, policy=policy, reference=policy.frozen_copy(), **options, **config)

    return make


@pytest.mark.parametrize("ent_coef", [0.0, 0.01])
def test_rollouts_and_updates_hold_the_logits_of_a_part_only(ent_coef: float, make_agent: Any) -> None:
    agent = make_agent(ent_coef=ent_coef)
    agent.collector.reset(0)
    with Memory() as memory:
        rollout = agent.collector.collect(3)
    assert memory.largest == STEP
    assert memory.peak <= 5 * STEP
    assert 400 < len(rollout) < 1_000

    before = agent.parameters.detach().clone()
    with Memory() as memory:
        agent._update(rollout)
    assert not torch.equal(agent.parameters, before)
    assert 4 * int(rollout.lengths.sum()) * NUM_WORDS > 15 * PART  # many parts, of which few may be held
    assert memory.largest <= PART
    assert memory.peak <= 6 * PART


def test_the_reference_pass_too(make_agent: Any) -> None:
    rows = np.full((NUM_TEXTS, LENGTH + 1), NUM_WORDS)
    rows[:, :3] = np.random.default_rng(0).integers(0, NUM_WORDS, (NUM_TEXTS, 3))
    with Memory() as memory:
        make_agent().reference.logprobs(torch.from_numpy(rows), torch.full((NUM_TEXTS,), 2))
    assert memory.largest <= PART
    assert memory.peak <= 4 * PART
