"""Chats as prompts: through the tokenizer's chat template, to reward functions as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textenvs
from textenvs.prompt_rows import read_prompts
from textenvs.tasks.dataset import in_test_split, text_of

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}"
    "{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ eos_token + '[assistant]' }}{% endif %}"
)
ASK = [{"role": "user", "content": "1+1"}]
LONG = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2"}]


def chat_tokenizer(template: str | None = TEMPLATE) -> Any:
    """Every byte a token, beside <s> and </s>."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=["<s>", "</s>"],
        vocab_size=258,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["a"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=template
    )


def tokens(task: Any, row: np.ndarray) -> str:
    """A row of ids with its special tokens."""
    return str(task.vocab.tokenizer.decode([i for i in row.tolist() if i < task.pad_id]))


def test_chats_become_texts_by_the_template() -> None:
    chats = [ASK, LONG, [*ASK, {"role": "assistant", "content": "It is "}]]
    task = textenvs.from_prompts(chats, chat_tokenizer(), reward="length", max_new_tokens=4).task
    assert [tokens(task, row) for row in task.prompts_at(np.arange(3))] == [
        "<s>[user]1+1</s>[assistant]",
        "<s>[system]be brief</s>[user]2+2</s>[assistant]",
        "<s>[user]1+1</s>[assistant]It is ",  # gone on with
    ]


@pytest.mark.parametrize("form", ["list", "rows", "messages", "jsonl", "dataset"])
def test_every_form_of_chats(form: str, tmp_path: Path) -> None:
    answer = [{"role": "assistant", "content": "2"}]
    rows: Any = [{"prompt": ASK, "completion": answer, "level": 1}, {"prompt": LONG, "completion": "4", "level": 2}]
    if form == "list":
        rows = [ASK, LONG]
    elif form == "messages":
        rows = [{"messages": [*ASK, *answer]}, {"messages": [*LONG, {"role": "assistant", "content": "4"}]}]
    elif form == "jsonl":
        path = tmp_path / "chats.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        rows = path
    elif form == "dataset":
        rows[1]["completion"] = [{"role": "assistant", "content": "4"}]
        rows = pytest.importorskip("datasets").Dataset.from_list(rows)
    table = read_prompts(rows)
    assert table.prompts == table.columns["prompt_messages"] == [ASK, LONG]
    assert table.columns.get("completion") == (None if form == "list" else ["2", "4"])
    assert table.columns.get("level") == ([1, 2] if form in ("rows", "jsonl", "dataset") else None)


def test_messages_without_an_answer_have_none() -> None:
    table = read_prompts([{"messages": ASK}, {"messages": [*LONG, {"role": "assistant", "content": "4"}]}])
    assert table.prompts == [ASK, LONG]
    assert table.columns["completion"] == [None, "4"]


def test_reward_functions_get_text_or_the_messages_as_they_were() -> None:
    seen: list[Any] = []

    def spy(prompts: Any, completions: Any) -> list[float]:
        seen.append((prompts[0], completions[0]))
        return [0.0]

    for messages in (False, True):
        reward = textenvs.rewards.functions.FunctionReward(spy, messages=messages)
        env = textenvs.from_prompts([LONG], chat_tokenizer(), reward=reward, max_new_tokens=1)
        env.reset(seed=0)
        env.step(env.task.vocab.encode("x")[0])
    env.reset(options={"prompt": "by hand"})
    env.step(env.task.vocab.encode("x")[0])
    assert seen == [
        ("[system]be brief[user]2+2[assistant]", "x"),
        (LONG, [{"role": "assistant", "content": "x"}]),
        ([{"role": "user", "content": "by hand"}], [{"role": "assistant", "content": "x"}]),
    ]


def test_a_chat_can_be_chosen_at_reset_and_completed_by_the_oracle() -> None:
    rows = [{"prompt": ASK, "completion": "2"}, {"prompt": LONG, "completion": "4"}]
    env = textenvs.from_prompts(rows, chat_tokenizer())
    obs, _ = env.reset(seed=0, options={"prompt": LONG})
    oracle = env.task.oracle(obs[None, : env.text_spec.prompt_length])[0]
    assert tokens(env.task, oracle) == "4</s>"
    env.step(int(oracle[0]))
    assert env.step(int(oracle[1]))[1] == 1.0


def test_the_split_of_a_chat_depends_on_its_messages_alone() -> None:
    chats = [[{"role": "user", "content": str(i)}] for i in range(60)]
    expected = [chat for chat in chats if in_test_split(json.dumps(chat, sort_keys=True), 0.3)]
    for template in (TEMPLATE, TEMPLATE.replace("[assistant]", "[me]")):
        make = {"reward": "length", "max_new_tokens": 1, "split": "test", "test_fraction": 0.3}
        task = textenvs.from_prompts(chats, chat_tokenizer(template), **make).task
        numbers = np.arange(task.num_prompts)
        assert task.columns(task.prompts_at(numbers), numbers)["prompt_messages"] == expected
    assert 8 < len(expected) < 30
    assert text_of([{"content": "é", "role": "user"}]) == '[{"content": "é", "role": "user"}]'


def test_what_has_no_chat_template_says_so() -> None:
    make: dict[str, Any] = {"reward": "length", "max_new_tokens": 1}
    with pytest.raises(ValueError, match=r"prompt 0: .* has no chat template.*tokenizer\.chat_template = '…'"):
        textenvs.from_prompts([ASK], chat_tokenizer(None), **make)
    for tokenizer in ("bytes", "characters", "words", textenvs.Vocab("ab")):
        with pytest.raises(ValueError, match="by the chat template of a Hugging Face tokenizer"):
            textenvs.from_prompts([ASK], tokenizer, **make)
    refusing = chat_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValueError, match=r"prompt 0: the chat template of .* refuses .*'1.1'.*: roles must alternate"):
        textenvs.from_prompts([ASK], refusing, **make)


def test_texts_and_chats_do_not_mix() -> None:
    with pytest.raises(
        ValueError, match=r"prompt 1: it has the columns \['prompt'\], prompt 0 has \['prompt', 'prompt_m"
    ):
        read_prompts([ASK, "text"])
