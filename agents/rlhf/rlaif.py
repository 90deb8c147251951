"""RLAIF from end to end on reviews with faults: the stages, each with a folder of its own.

    base ───────────────────▶ sft ─▶ labels ─▶ dpo-human, reward-model-human ─▶ ppo-human ─▶ evaluation
    critic ─▶ revisions ──────┘        ▲       dpo-ai, reward-model-ai ─▶ ppo-ai ──────────────┘
        └───▶ judge ──────────────────┘

The base model writes as it has read: rude, false and rambling reviews among others. It is fine-tuned on answers that
the critic has revised under a constitution. Then pairs of its answers are compared, once by the judge under the same
constitution, once by a simulated human annotator who goes by the faults that the rules count; everything behind that is
done alike with both.

Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback"; Lee et al. 2023, "RLAIF".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from agents import distributed
from agents.lm.actor_critic import LMActorCritic
from agents.lm.ai_judge import AIJudge, position_bias
from agents.lm.annotators import Annotator
from agents.lm.chat import ChatModel
from agents.lm.constitution import load_constitution
from agents.lm.critique import criticise_and_revise, load_revisions, revision_rows, save_revisions
from agents.lm.dpo import train_dpo
from agents.lm.loading import load_model
from agents.lm.models import new_gpt2
from agents.lm.preferences import Ranking, load_rankings, make_rankings, save_rankings
from agents.lm.reward_model import RewardModel, train_reward_model
from agents.lm.sampling import sample_answers
from agents.lm.sft import SFTConfig, encode_rows, train_on_texts
from agents.rlhf.evaluation import as_json, measure, shown_samples, write_texts
from agents.rlhf.rlaif_settings import RLAIF, FaultyWorld, reward_model_of
from agents.rlhf.settings import RLHFError
from agents.rlhf.stages import EVALUATION, HELD_OUT_ANSWERS, Job, Stage, optimise, save_model, thinned
from agents.rlhf.tiny_chat import (
    FAULT_OF,
    make_pairs,
    train_critic,
    train_judge_on_pairs,
    write_critique,
)
from textenvs import Episodes
from textenvs.tiny_reviews import TEST_KINDS, TRAIN_KINDS
from textenvs.tiny_reviews.faults import FAULTS, MOST, count_faults, make_reviews

LABELS = ("human", "ai")
"""Who labelled the pairs that a policy has learnt from."""
STREAMS = CORPUS, PROMPTS, PAIRS, JUDGED = range(100, 104)


@dataclass(frozen=True)
class FaultyJob(Job):
    """A stage's job in that world."""

    label: str = ""

    @property
    def world(self) -> FaultyWorld:
        return FaultyWorld(self.label)


def make_rlaif_stages(rlaif: RLAIF) -> list[Stage]:
    """The stages of one seed, each after those that it needs."""

    def stage(name: str, needs: Sequence[str], run: Any, **options: Any) -> Stage:
        return Stage(name, tuple(needs), partial(run, rlaif, **options))

    models = ["base", "sft", *(f"{how}-{label}" for how in ("dpo", "ppo") for label in LABELS)]
    stages = [
        stage("base", (), pretrain),
        stage("critic", (), make_critic),
        stage("judge", ("critic",), make_judge),
        stage("revisions", ("critic",), revise),
        stage("sft", ("base", "revisions"), fine_tune),
        stage("labels", ("sft", "judge"), label_pairs),
    ]
    for label in LABELS:
        stages += [
            stage(f"dpo-{label}", ("labels",), learn_by_dpo, label=label),
            stage(f"reward-model-{label}", ("labels",), learn_reward, label=label),
            stage(f"ppo-{label}", (f"reward-model-{label}",), learn_by_ppo, label=label),
        ]
    return [*stages, stage("evaluation", models, evaluate, models=tuple(models))]


def in_world(job: Job, label: str = "", **changes: Any) -> FaultyJob:
    """The job in the world of reviews with faults."""
    return FaultyJob(**{**vars(job), **changes}, label=label)


# -- models ------------------------------------------------------------------------------------------------------------


def pretrain(rlaif: RLAIF, job: Job) -> None:
    """A small GPT-2 on reviews with faults and without."""
    setting, world = rlaif.rlhf.pretraining, FaultyWorld()
    model = new_gpt2(
        world.tokenizer,
        width=setting.width,
        num_layers=setting.num_layers,
        num_heads=setting.num_heads,
        positions=64,
        seed=job.seed,
    ).to(distributed.join())
    corpus = world.faulty_corpus(setting.texts, job.stream(CORPUS), rlaif.share)
    config = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size)
    losses = train_on_texts(model, corpus, config, seed=job.seed, on_progress=job.on_step)
    save_model(model, world.tokenizer, job.out / "model")
    job.write({"losses": thinned(losses), "texts": len(corpus), "tokens": corpus.num_targets})


def make_critic(rlaif: RLAIF, job: Job) -> None:
    """The critic learns to answer badly where it is asked to, to criticise and to revise."""
    chat, losses = train_critic(rlaif.chat, load_constitution(), job.seed, job.on_step)
    save_model(chat.model, chat.tokenizer, job.out / "model")
    job.write({"losses": thinned(losses)})


def make_judge(rlaif: RLAIF, job: Job) -> None:
    """The judge is the critic, trained further to compare; then it is examined."""
    constitution = load_constitution()
    judge = AIJudge(ChatModel.from_pretrained(job.folder / "critic" / "model"), constitution)
    pairs = make_pairs(constitution, rlaif.chat.pairs, job.seed)
    losses = train_judge_on_pairs(rlaif.chat, judge, pairs, job.seed, job.on_step)
    save_model(judge.chat.model, judge.chat.tokenizer, job.out / "model")
    job.write({"losses": thinned(losses), **examine(judge, rlaif, job)})


def examine(judge: AIJudge, rlaif: RLAIF, job: Job) -> dict[str, Any]:
    """Accuracy and position bias on pairs about held-out kinds. The bias after averaging is that of two questions of
    which each is asked by itself, with the answers in one order and in the other."""
    constitution = judge.constitution
    pairs = make_pairs(constitution, rlaif.judged, job.stream(JUDGED), TEST_KINDS)
    judge = AIJudge(judge.chat, constitution, min_mass=rlaif.min_mass, on_neither="skip")
    texts = [[getattr(pair, name) for pair in pairs] for name in ("prompt", "x", "y")]
    principles = [constitution[pair.principle] for pair in pairs]
    asked = judge.compare(texts[0], texts[1], texts[2], principles)
    again = judge.compare(texts[0], texts[2], texts[1], principles)
    answered = asked.answered & again.answered
    if not answered.any():
        raise RLHFError(f"The judge answered none of {len(pairs)} questions with A or B: it has learnt too little.")
    difference = np.array([pair.difference for pair in pairs])
    decided = answered & (difference != 0)
    better_x = difference > 0

    def accuracy(probability: np.ndarray, where: np.ndarray) -> float | None:
        return float(((probability > 0.5) == better_x)[where].mean()) if where.any() else None

    def of(name: str) -> np.ndarray:
        return decided & np.array([pair.principle == name for pair in pairs])

    both = [asked.first[answered], asked.swapped[answered]]
    averaged = [asked.probability[answered], again.probability[answered]]
    return {
        "pairs": len(pairs),
        "decided": int(decided.sum()),
        "answered": float(answered.mean()),
        "accuracy": accuracy(asked.probability, decided),
        "accuracy_one_order": accuracy(asked.first, decided),
        "accuracy_by_principle": {name: accuracy(asked.probability, of(name)) for name in FAULT_OF},
        "position_bias_before": position_bias(*both),
        "position_bias_after": position_bias(*averaged),
        "first_preferred_before": preferred(both),
        "first_preferred_after": preferred(averaged),
        "changes_its_mind": float(((both[0] > 0.5) == (both[1] > 0.5)).mean()),
        "orders": np.round(np.stack(both), 4).T[:500].tolist(),
    }


def preferred(probabilities: Sequence[np.ndarray]) -> float:
    """Share of the questions for which the first one is more probably better; equally probable counts half."""
    every = np.round(np.concatenate(probabilities), 6)  # the same answer twice: ½ to rounding
    return float(((np.sign(every - 0.5) + 1) / 2).mean())


def revise(rlaif: RLAIF, job: Job) -> None:
    """Bad answers to training prompts, their critiques and their revisions."""
    chat, constitution = ChatModel.from_pretrained(job.folder / "critic" / "model"), load_constitution()
    reviews = make_reviews(rlaif.revisions, seed=job.stream(PROMPTS), kinds=TRAIN_KINDS)
    found = criticise_and_revise(
        chat,
        constitution,
        [review.prompt for review in reviews],
        max_new_tokens=24,
        seed=job.stream(PROMPTS),
        on_progress=job.report,
    )
    known = set(FaultyWorld().grammar.vocab.tokens)
    kept = [each for each in found if set(each.revision.split()) <= known and each.revision]
    save_revisions(job.out / "revisions.jsonl", kept)
    rows = []
    for each in kept:
        fault = FAULT_OF[each.principle]
        rows.append(
            (
                count_faults(each.prompt, each.answer).of(fault) > 0,
                count_faults(each.prompt, each.revision).of(fault) > 0,
                count_faults(each.prompt, each.answer).total,
                count_faults(each.prompt, each.revision).total,
                each.critique == write_critique(fault, each.prompt, each.answer),
            )
        )
    by_principle = {
        name: np.mean([row for row, each in zip(rows, kept, strict=True) if each.principle == name], axis=0).tolist()
        for name in {each.principle for each in kept}
    }
    names = ("fault_before", "fault_after", "faults_before", "faults_after", "critique_right")
    job.write(
        {
            "asked": len(found),
            "kept": len(kept),
            **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
            "by_principle": {name: dict(zip(names, row, strict=True)) for name, row in sorted(by_principle.items())},
            "samples": [asdict(each) for each in kept[:12]],
        }
    )


def fine_tune(rlaif: RLAIF, job: Job) -> None:
    """The base model learns the revised answers."""
    setting = rlaif.sft
    model = load_model(job.folder / "base" / "model").to(distributed.join())
    tokenizer = FaultyWorld().tokenizer
    corpus = encode_rows(revision_rows(load_revisions(job.folder / "revisions" / "revisions.jsonl")), tokenizer)
    config = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size, epochs=setting.epochs)
    losses = train_on_texts(model, corpus, config, seed=job.seed, on_progress=job.on_step)
    save_model(model, tokenizer, job.out / "model")
    job.write({"losses": thinned(losses), "texts": len(corpus)})


# -- preferences -------------------------------------------------------------------------------------------------------


def label_pairs(rlaif: RLAIF, job: Job) -> None:
    """The SFT model writes two answers to each prompt; the annotator and the judge each compare them."""
    job = in_world(job)
    chat = ChatModel.from_pretrained(job.folder / "judge" / "model")
    judge = AIJudge(chat, load_constitution(), min_mass=rlaif.min_mass, on_neither="skip")
    policy = job.policy(job.base_model)
    figures: dict[str, Any] = {}
    parts = [("train", rlaif.comparisons, PAIRS), ("test", max(rlaif.comparisons // 4, 16), HELD_OUT_ANSWERS)]
    for number, (split, count, stream) in enumerate(parts):
        envs = job.world.envs(split, min(count, 128) * 2, group_size=2)
        answers = sample_answers(policy, envs, count, k=2, seed=job.stream(stream))
        envs.close()
        gold, lengths = answers.scores.astype(np.float64), answers.episodes.lengths.reshape(-1, 2)
        annotator = Annotator(rlaif.scale)
        ranks, shown = annotator.rank(gold, lengths, seed=job.stream(stream))
        human = make_rankings(answers, ranks, gold, shown=shown, annotator="simulated")
        done, total = number / 2, len(parts)

        def tell(asked: int, of: int, done: float = done, total: int = total) -> None:
            job.report(done + asked / of / total, f"{asked} of {of} questions")

        ai, left_out = judge.label(
            [each.prompt for each in human],
            [(each.answers[0], each.answers[1]) for each in human],
            finished=[
                (True, True) if each.finished is None else (each.finished[0], each.finished[1]) for each in human
            ],
            principles="all",
            seed=job.stream(stream),
            on_progress=tell,
        )
        for label, rankings in (("human", human), ("ai", ai)):
            save_rankings(job.out / f"{label}-{split}.jsonl", rankings)
        kept = np.delete(gold, left_out, axis=0)
        figures[split] = {
            "comparisons": count,
            "left_out": len(left_out),
            "differ": float((gold[:, 0] != gold[:, 1]).mean()),
            "best_possible_accuracy": annotator.best_accuracy(gold, lengths),
            "human_accuracy": accuracy_by_gold(human, gold),
            "ai_accuracy": accuracy_by_gold(ai, kept),
            "ai_certainty": float(np.mean([each.probability for each in ai])) if ai else None,
        }
    job.write(figures)


def accuracy_by_gold(rankings: Sequence[Ranking], gold: np.ndarray) -> float | None:
    """How often the first two answers are in the order of their gold scores [N, 2], where those differ; ties count
    half."""
    signs = np.array([np.sign(each.ranks[1] - each.ranks[0]) for each in rankings])
    right = np.sign(gold[:, 0] - gold[:, 1])
    differ = right != 0
    return float((0.5 + 0.5 * signs * right)[differ].mean()) if differ.any() else None


# -- learning from them ------------------------------------------------------------------------------------------------


def learn_by_dpo(rlaif: RLAIF, job: Job, label: str) -> None:
    """DPO on the labels."""
    policy = job.policy(job.base_model)
    rankings = load_rankings(job.folder / "labels" / f"{label}-train.jsonl")
    held_out = load_rankings(job.folder / "labels" / "human-test.jsonl")

    def on_step(step: int, of: int, figures: dict[str, float]) -> None:
        job.report(step / of, f"loss {figures['losses/dpo']:.3f}")

    config = replace(rlaif.dpo, seed=job.seed)
    result = train_dpo(
        policy, rankings, config, held_out=held_out, checkpoint=job.work / "checkpoint", callback=on_step
    )
    policy.save_pretrained(job.out / "model")
    job.write({"comparisons": result.num_comparisons, "accuracy": result.accuracy})


def learn_reward(rlaif: RLAIF, job: Job, label: str) -> None:
    """A reward model from the labels."""
    model = RewardModel.from_causal_lm(job.policy(job.base_model), seed=job.seed)

    def on_step(step: int, of: int, figures: dict[str, float]) -> None:
        job.report(step / of, f"accuracy {figures['rewards/accuracies']:.2f}")

    rankings = load_rankings(job.folder / "labels" / f"{label}-train.jsonl")
    held_out = load_rankings(job.folder / "labels" / "human-test.jsonl")
    config = replace(rlaif.reward_model, seed=job.seed)
    result = train_reward_model(model, rankings, config, held_out=held_out, callback=on_step)
    model.save_pretrained(job.out / "model")
    job.write({"comparisons": result.num_comparisons, "accuracy": result.accuracy})


def learn_by_ppo(rlaif: RLAIF, job: Job, label: str) -> None:
    """PPO against the reward model, with a critic that starts from it."""
    ppo = replace(rlaif.rlhf.ppo, critic=str(reward_model_of(job.folder, label)))
    settings = replace(rlaif.rlhf, ppo=ppo)
    optimise(in_world(job, label, settings=settings), kl_coef=ppo.kl_coefs[0])


# -- evaluation --------------------------------------------------------------------------------------------------------


def evaluate(rlaif: RLAIF, job: Job, models: tuple[str, ...]) -> None:
    """What every model writes on the same prompts about held-out kinds: faults, grammar, KL, samples."""
    job = in_world(job)
    world = job.world
    reference = job.policy(job.base_model)
    results: dict[str, Any] = {}
    for number, name in enumerate(models):
        policy: LMActorCritic = job.policy(job.folder / name / "model")
        answers = write_texts(policy, world, rlaif.evaluation_texts, job.stream(EVALUATION))
        figures = measure(policy, answers, world, reference=reference, pretrained=None)
        results[name] = as_json(figures, shown_samples(answers, world, rlaif.rlhf.shown_prompts))
        results[name]["faults"] = fault_shares(answers.episodes)
        gold = world.gold(answers.episodes)
        assert gold is not None
        np.save(job.out / f"gold-{name}.npy", gold)
        job.report((number + 1) / len(models), name)
    job.write({"models": results, "seed": job.seed})


def fault_shares(episodes: Episodes) -> dict[str, float]:
    """Share of the texts with each fault, and with none."""
    counts = np.array(
        [
            [count_faults(prompt, completion).of(fault) for fault in FAULTS]
            for prompt, completion in zip(episodes.prompts, episodes.completions, strict=True)
        ]
    )
    assert counts.max() <= MOST
    return {
        **{fault: float((counts[:, i] > 0).mean()) for i, fault in enumerate(FAULTS)},
        "none": float((counts == 0).all(1).mean()),
    }
