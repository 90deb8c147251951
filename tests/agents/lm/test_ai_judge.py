"""The AI judge: averaging both orders, with literal numbers; soft labels; answers that are neither A nor B."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from agents.lm.ai_judge import AIJudge, JudgeError, average_orders, fill, position_bias, soft_ranking
from agents.lm.chat import ChatModel, Choices
from agents.lm.constitution import Constitution, Principle

PRINCIPLES = (
    Principle("kind", "?", "!", "Which is kinder?"),
    Principle("short", "?", "!", "Which is shorter?", "Ramble."),
)
CONSTITUTION = Constitution(PRINCIPLES, "Answer: {prompt}")


class Scripted:
    """Answers with given probabilities of A and B; remembers what it was asked."""

    def __init__(self, probabilities: Callable[[str], tuple[float, float]]) -> None:
        self.probabilities, self.asked = probabilities, []

    def choices(self, chats: Sequence[Any], options: Sequence[str], on_progress: Any = None) -> Choices:
        self.asked += [chat[0]["content"] for chat in chats]
        found = np.array([self.probabilities(chat[0]["content"]) for chat in chats])
        return Choices(found, ["perhaps"] * len(chats))


def judge(probabilities: Callable[[str], tuple[float, float]], **options: Any) -> AIJudge:
    return AIJudge(Scripted(probabilities), CONSTITUTION, **options)  # type: ignore[arg-type]


def test_average_of_both_orders() -> None:
    first, swapped = np.array([0.9, 0.6, 0.5]), np.array([0.3, 0.8, 0.5])
    np.testing.assert_allclose(average_orders(first, swapped), [0.8, 0.4, 0.5], rtol=0, atol=1e-15)
    assert position_bias(first, swapped) == pytest.approx((0.6 + 0.7 + 0.5) / 3 - 0.5)


def test_a_liking_for_the_first_cancels() -> None:
    rng = np.random.default_rng(0)
    fair = rng.uniform(0.2, 0.8, 1_000)
    liking = rng.uniform(0, 0.2, 1_000)
    first, swapped = fair + liking, 1 - fair + liking
    np.testing.assert_allclose(average_orders(first, swapped), fair, atol=1e-12)
    assert position_bias(first, swapped) == pytest.approx(liking.mean())
    averaged = average_orders(first, swapped)
    assert abs(position_bias(averaged, average_orders(swapped, first))) < 1e-12


def test_questions_and_verdicts() -> None:
    def answers(text: str) -> tuple[float, float]:
        return (0.6, 0.2) if "A : good" in text else (0.4, 0.4)

    asking = judge(answers, min_mass=0.8)
    verdicts = asking.compare(["the film"], ["good"], ["bad"], [PRINCIPLES[0]])
    assert asking.chat.asked == [
        "Answer: the film\nA : good\nB : bad\nWhich is kinder? Answer A or B .",
        "Answer: the film\nA : bad\nB : good\nWhich is kinder? Answer A or B .",
    ]
    np.testing.assert_allclose([verdicts.first[0], verdicts.swapped[0]], [0.75, 0.5])
    np.testing.assert_allclose(verdicts.probability, [(0.75 + 1 - 0.5) / 2])
    np.testing.assert_allclose(verdicts.mass, [[0.8, 0.8]])
    assert verdicts.answered.all()


def test_neither_a_nor_b_is_an_error_that_names_the_row() -> None:
    def answers(text: str) -> tuple[float, float]:
        return (0.01, 0.02) if "A : y2" in text else (0.5, 0.4)

    rows = (["p1", "p2", "p3"], ["x1", "x2", "x3"], ["y1", "y2", "y3"])
    with pytest.raises(JudgeError) as error:
        judge(answers).compare(*rows)
    said = str(error.value)
    assert "Row 1 (principle 'kind', 'p2'), swapped order: the judge answers neither A nor B" in said
    assert "0.03, below min_mass=0.5, and its likeliest answer is 'perhaps'" in said
    verdicts = judge(answers, on_neither="skip").compare(*rows)
    assert verdicts.answered.tolist() == [True, False, True]
    assert np.isnan(verdicts.probability).tolist() == [False, True, False]
    rankings, left_out = judge(answers, on_neither="skip").label(rows[0], list(zip(rows[1], rows[2], strict=True)))
    assert [ranking.prompt for ranking in rankings] == ["p1", "p3"]
    assert left_out == [1]


def test_no_probability_at_all_is_neither() -> None:
    verdicts = judge(lambda text: (0.0, 0.0), min_mass=0.0, on_neither="skip").compare(["p"], ["x"], ["y"])
    assert verdicts.answered.tolist() == [False]
    assert np.isnan(verdicts.probability).all()


def test_soft_labels() -> None:
    def answers(text: str) -> tuple[float, float]:
        if "shorter" in text:
            return (0.5, 0.5)
        return (0.9, 0.1) if "A : good" in text else (0.3, 0.7)

    pairs = [("good", "bad"), ("bad", "good")]
    rankings, left_out = judge(answers, name="tiny").label(["p", "q"], pairs, principles="all", seed=0)
    assert left_out == []
    assert [ranking.ranks for ranking in rankings] == [(1, 2), (2, 1)]
    # The mean over principles of (0.9 + 0.7) / 2 and 1/2.
    assert [ranking.probability for ranking in rankings] == pytest.approx([0.65, 0.65])
    assert {ranking.annotator for ranking in rankings} == {"tiny"}


def test_principles_are_drawn() -> None:
    asking = judge(lambda text: (0.5, 0.5))
    asking.label([f"p{i}" for i in range(400)], [("x", "y")] * 400, seed=1)
    share = np.mean(["kinder" in text for text in asking.chat.asked])
    assert 0.4 < share < 0.6
    assert len(asking.chat.asked) == 800
    again = judge(lambda text: (0.5, 0.5))
    again.label([f"p{i}" for i in range(400)], [("x", "y")] * 400, seed=1)
    assert again.chat.asked == asking.chat.asked


def test_half_is_a_tie_and_endings_are_kept() -> None:
    tie = soft_ranking("p", ("x", "y"), 0.5)
    assert (tie.ranks, tie.probability) == ((1, 1), 0.5)
    rankings, _ = judge(lambda text: (0.5, 0.5)).label(
        ["p", "q"], [("x", "y"), ("z", "w")], finished=[(True, True), (True, False)]
    )
    assert [ranking.finished for ranking in rankings] == [None, (True, False)]


def test_braces_in_answers_are_left_alone() -> None:
    assert fill("{a} and {b}", a="{b}", b="{a}") == "{b} and {a}"


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="min_mass is a probability; got 2"):
        judge(lambda text: (0.5, 0.5), min_mass=2)
    with pytest.raises(ValueError, match="on_neither must be 'error' or 'skip'"):
        judge(lambda text: (0.5, 0.5), on_neither="ignore")
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        judge(lambda text: (0.5, 0.5)).compare(["p", "q"], ["x"], ["y", "z"])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_with_random_weights_is_unbiased_after_averaging(kind: str, make_model: Callable[..., Any]) -> None:
    import tokenizers
    import transformers

    words = ["<eos>", "A", "B", ":", ".", "Answer:", "Answer", "or", "Which", "is", "kinder?", "p", "x", "y", "z"]
    level = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}))
    level.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=level, eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = ChatModel(make_model(kind, vocab_size=len(words)), tokenizer)
    asking = AIJudge(chat, CONSTITUTION, min_mass=0.0)
    prompts, xs, ys = ["p"] * 6, ["x", "x", "y", "x x", "z", "y"], ["y", "z", "z", "z y", "x y", "y"]
    there, back = asking.compare(prompts, xs, ys), asking.compare(prompts, ys, xs)
    assert abs(position_bias(there.first, there.swapped)) > 1e-3
    assert abs(position_bias(there.probability, back.probability)) < 1e-6
    np.testing.assert_allclose(there.probability, 1 - back.probability, atol=1e-6)
    assert there.probability[-1] == pytest.approx(0.5, abs=1e-6)  # the same answer twice
