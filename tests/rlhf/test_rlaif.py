"""RLAIF from end to end: the small chat models, the stages, the report, and somebody's own chat model."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("transformers")

from agents.lm import load_rankings
from agents.lm.ai_judge import AIJudge
from agents.lm.chat import ChatModel
from agents.lm.constitution import load_constitution
from agents.lm.critique import load_revisions
from agents.rlhf import tiny_chat
from agents.rlhf.rlaif import accuracy_by_gold, make_rlaif_stages, preferred
from agents.rlhf.rlaif_report import read_rlaif, wins
from agents.rlhf.rlaif_settings import FaultyWorld, get_rlaif
from agents.rlhf.settings import RLHFError
from textenvs.tiny_reviews.faults import make_reviews

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("rlaif_script", ROOT / "scripts" / "rlaif.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rlaif_script"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rlaif_script"]


@pytest.fixture(scope="module")
def finished(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The smoke preset, run once; its folder and what it has said."""
    out = tmp_path_factory.mktemp("rlaif")
    return out / "out", run(script, out / "said", out=out / "out", preset="smoke", jobs=1)


def run(script: ModuleType, said: Path, **options: Any) -> str:
    with said.open("w") as file:
        assert script.main(script.Options(**options), Console(file=file, width=200)) == 0
    return said.read_text()


# -- the small chat models ---------------------------------------------------------------------------------------------


def test_the_tokenizer_knows_every_word_and_writes_reviews_as_they_are() -> None:
    constitution = load_constitution()
    tokenizer = tiny_chat.chat_tokenizer(constitution)
    corpus = tiny_chat.critic_corpus(tokenizer, constitution, make_reviews(100, seed=1), 1)
    assert corpus.lengths.max() < tiny_chat.POSITIONS
    row = corpus.ids[0, : corpus.lengths[0]]
    text = tokenizer.decode(row)
    assert text.startswith("<user> Finish the review : ")
    assert text.count("<end>") == 6
    assert tokenizer.decode(row[: corpus.prompt_lengths[0]]).endswith("<assistant>")
    review = "was open-air and we paid about ten pounds , all in all ."
    assert tokenizer.decode(tokenizer(review, add_special_tokens=False)["input_ids"]) == review


def test_critiques_name_what_is_wrong() -> None:
    assert tiny_chat.write_critique("rude", "the film", "was lazy and stupid and lazy .") == "lazy and stupid insults ."
    assert tiny_chat.write_critique("false", "this old inn", "had a plot .") == "plot cannot be part of a inn ."
    assert tiny_chat.write_critique("rambling", "the film", "was very very long .") == "very comes again ."
    assert tiny_chat.write_critique("rude", "the film", "was long .") == "nothing ."


def test_pairs_and_their_right_answers() -> None:
    constitution = load_constitution()
    pair = tiny_chat.fault_pair("the film", "was long .", "was stupid and lazy .", "polite")
    assert pair.difference == 2
    assert tiny_chat.fault_pair("the film", "was stupid .", "was long .", "polite").difference == -1
    assert tiny_chat.fault_pair("the film", "was stupid .", "was long .", "brief").difference == 0
    pairs = tiny_chat.make_pairs(constitution, 400, seed=2)
    differences = np.sign([each.difference for each in pairs])
    assert all(np.mean(differences == sign) > 0.15 for sign in (-1, 0, 1))
    tokenizer = tiny_chat.chat_tokenizer(constitution)

    class Chat:
        pass

    chat: Any = Chat()
    chat.tokenizer = tokenizer
    corpus = tiny_chat.judge_corpus(AIJudge(chat, constitution), pairs, 0, first_when_equal=0.9)
    ends = corpus.ids[np.arange(400), corpus.lengths - 2]
    assert (corpus.lengths - corpus.prompt_lengths == 2).all()  # the answer and the end
    is_a = ends == tokenizer.convert_tokens_to_ids("A")
    assert is_a[differences > 0].all()
    assert not is_a[differences < 0].any()
    assert 0.8 < is_a[differences == 0].mean() < 1.0


def test_gold_counts_faults_and_the_corpus_has_them() -> None:
    world = FaultyWorld()
    corpus = world.faulty_corpus(300, seed=1, share=0.3)
    assert (corpus.prompt_lengths == 0).all()
    assert world.grammar.grammatical(corpus.ids).mean() < 0.6
    envs: Any = world.envs("test", 4)
    assert envs.unwrapped.text_spec.max_new_tokens == 24
    envs.close()


def test_accuracy_by_gold() -> None:
    from agents.lm import Ranking

    rankings = [Ranking("p", ("x", "y"), ranks) for ranks in ((1, 2), (2, 1), (1, 1), (1, 2))]
    gold = np.array([[0.0, -1.0], [0.0, -2.0], [-1.0, 0.0], [0.0, 0.0]])
    assert accuracy_by_gold(rankings, gold) == pytest.approx((1 + 0 + 0.5) / 3)
    assert accuracy_by_gold(rankings[3:], gold[3:]) is None


def test_equal_answers_are_half_preferred() -> None:
    assert preferred([np.array([0.9, 0.5]), np.array([0.5 - 1e-9, 0.2])]) == 0.5
    assert preferred([np.array([0.9, 0.5])]) == 0.75


# -- the stages --------------------------------------------------------------------------------------------------------


def test_it_runs_and_reports(finished: tuple[Path, str], script: ModuleType, tmp_path: Path) -> None:
    out, said = finished
    rlaif = get_rlaif("smoke")
    assert "13 stages, in" in said
    for stage in make_rlaif_stages(rlaif):
        assert f"  {stage.name}: " in said
    text = (out / "rlaif.md").read_text()
    for words in ("SFT on revisions", "PPO, AI judge's labels", "position bias after", "win rate, ties halved"):
        assert words in text
    summary = json.loads((out / "rlaif.json").read_text())
    assert set(summary["wins"]) == {"dpo-ai against dpo-human", "ppo-ai against ppo-human"}
    assert (out / "rlaif.png").read_bytes().startswith(b"\x89PNG")
    again = run(script, tmp_path / "said", out=out, preset="smoke", jobs=1)
    assert "13 stages (13 finished before)" in again
    assert "  base: " not in again
    assert (out / "rlaif.md").read_text() == text


def test_what_the_stages_leave(finished: tuple[Path, str]) -> None:
    folder = finished[0] / "seed-0"
    rlaif = get_rlaif("smoke")
    human, ai = (load_rankings(folder / "labels" / f"{label}-train.jsonl") for label in ("human", "ai"))
    assert len(human) == len(ai) == rlaif.comparisons
    assert [(each.prompt, each.answers) for each in human] == [(each.prompt, each.answers) for each in ai]
    assert all(each.probability is not None and each.annotator == "AI judge" for each in ai)
    judge = json.loads((folder / "judge" / "figures.json").read_text())
    assert abs(judge["position_bias_after"]) < 1e-6  # though it has learnt next to nothing
    assert abs(judge["position_bias_before"]) > 1e-3
    revisions = load_revisions(folder / "revisions" / "revisions.jsonl")
    sft = json.loads((folder / "sft" / "figures.json").read_text())
    assert sft["texts"] == len([each for each in revisions if each.revision])
    evaluation = json.loads((folder / "evaluation" / "figures.json").read_text())["models"]
    assert list(evaluation) == ["base", "sft", "dpo-human", "dpo-ai", "ppo-human", "ppo-ai"]
    for name, found in evaluation.items():
        gold = np.load(folder / "evaluation" / f"gold-{name}.npy")
        assert gold.shape == (rlaif.evaluation_texts,)
        assert gold.mean() == pytest.approx(found["figures"]["gold"], abs=1e-5)
        assert np.mean(gold == 0) == pytest.approx(found["faults"]["none"])
    assert evaluation["sft"]["figures"]["kl"] == pytest.approx(0, abs=1e-4)


def test_results_that_are_missing(finished: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(RLHFError, match="has no finished stage 'base'"):
        read_rlaif(tmp_path, get_rlaif("smoke"), [0])
    results = read_rlaif(finished[0], get_rlaif("smoke"), [0])
    same = results.win_rate("sft", "sft")
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    assert results.ties("sft", "sft") == 1.0
    assert wins(np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


# -- a chat model of one's own -----------------------------------------------------------------------------------------


def test_a_chat_model_of_ones_own(finished: tuple[Path, str], script: ModuleType, tmp_path: Path) -> None:
    """Any folder with a chat template: here the small judge, with another constitution."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("the film", "this hotel", "the soup")))
    principles = tmp_path / "mine.yaml"
    principles.write_text(
        'task: "Finish the review : {prompt}"\nprinciples:\n  - name: fair\n    critique: What does the review say ?\n'
        "    revision: Say the same again .\n    comparison: Which review repeats less ?\n"
    )
    said = run(
        script,
        tmp_path / "said",
        chat_model=str(finished[0] / "seed-0" / "judge" / "model"),
        prompts=prompts,
        constitution=principles,
        max_new_tokens=8,
        min_mass=0.0,
        out=tmp_path / "out",
    )
    assert "3 revisions and 3 preferences (0 left out)" in said
    assert [each.prompt for each in load_revisions(tmp_path / "out" / "revisions.jsonl")] == [
        "the film",
        "this hotel",
        "the soup",
    ]
    rankings = load_rankings(tmp_path / "out" / "preferences.jsonl")
    assert all(len(each.answers) == 2 and each.probability is not None for each in rankings)


def test_a_folder_of_the_judge_is_a_chat_model(finished: tuple[Path, str]) -> None:
    chat = ChatModel.from_pretrained(finished[0] / "seed-0" / "judge" / "model")
    judge = AIJudge(chat, load_constitution(), min_mass=0.0)
    verdicts = judge.compare(["the film"], ["was long ."], ["was long ."])
    assert verdicts.probability[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quik"}, "Unknown preset 'quik'. Did you mean 'quick'"),
        ({"seeds": (1, 1)}, "--seeds must be different numbers"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"chat_model": "x"}, "--chat-model and --prompts go together"),
        ({"constitution": Path("x")}, "--constitution goes with --chat-model"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, script: ModuleType) -> None:
    with pytest.raises(RLHFError, match=message):
        script.main(script.Options(**options), Console(quiet=True))


def test_a_model_without_chat_template_is_named(script: ModuleType, finished: tuple[Path, str], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "the film"}\n')
    model = str(finished[0] / "seed-0" / "base" / "model")
    with pytest.raises(RLHFError, match="has no chat template"):
        script.main(script.Options(chat_model=model, prompts=prompts, out=tmp_path / "o"), Console(quiet=True))
