"""The exam: its references have habits, its methods begin as the reference and are graded as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.exact import next_logprobs
from agents.exam import PAPERS, Exam, legal_actions, sit, skewed_policy
from agents.exam_methods import ANNOTATOR_SCALE, METHODS, rest
from agents.losses import dpo_loss
from textenvs import TextEnv
from textenvs.exact import ExactProblem, uniform_policy
from textenvs.regularised import entropy, kl_divergence
from textenvs.text_tree import TextTree

SMALL = {"texts": 512, "steps": 60}


@pytest.fixture(scope="module", params=[paper.name for paper in PAPERS])
def exam(request: pytest.FixtureRequest) -> Exam:
    torch.set_num_threads(1)
    return sit(request.param, **SMALL)


def test_a_chain_of_habits() -> None:
    """The next token depends on the last one alone, illegal ones left out."""
    policy = skewed_policy(3, seed=0)
    rows = np.array([[0, 1, 3, 3], [2, 1, 3, 3], [3, 3, 3, 3]])
    answers = policy(rows)
    assert np.allclose(np.exp(answers).sum(1), 1)
    assert np.array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])
    weights = np.random.default_rng(0).normal(size=(4, 3))
    assert np.allclose(answers[2] - answers[2, 0], weights[3] - weights[3, 0])  # before anything is written
    masked = policy(rows[:1], np.array([[True, False, True]]))[0]
    assert masked[1] == -np.inf
    assert masked[2] - masked[0] == pytest.approx(weights[1, 2] - weights[1, 0])
    assert np.allclose(skewed_policy(3, seed=0, strength=0)(rows), np.log(1 / 3))


def test_legal_actions_are_those_of_the_environment() -> None:
    env = TextEnv("DyckMasked", length=2, num_kinds=2)
    tree = TextTree(env.task, env.task.prompts_at(np.array([1]))[0], prompt_index=1)
    index = np.arange(len(tree))
    masks = legal_actions(env.task, tree.rows(index), tree.lengths[index])
    assert masks is not None
    for i, row in zip(index, tree.rows(), strict=True):
        env.reset(seed=0, options={"index": 1})
        for t in range(int(tree.lengths[i])):
            assert np.array_equal(masks[i, t], env.action_masks())
            env.step(int(row[tree.task.prompt_length + t]))
    plain = TextTree(TextEnv("HiddenTarget", length=2, num_symbols=2).task)
    assert legal_actions(plain.task, plain.rows(), plain.lengths) is None


def test_the_reference_has_learnt_the_habits(exam: Exam) -> None:
    """It is nearer to the source of its texts than a uniform policy is, and far from uniform."""
    spec = exam.envs(1).unwrapped.text_spec
    source = skewed_policy(spec.num_tokens, seed=1, strength=exam.paper.strength)
    assert np.mean(exam.losses[-10:]) < np.mean(exam.losses[:10])
    for tree, own in zip(exam.problem.trees[:3], exam.problem.ref_logprobs[:3], strict=True):
        taught = tree.logprobs(source)
        assert kl_divergence(taught, own) < 0.5 * kl_divergence(taught, tree.logprobs(uniform_policy(spec.num_tokens)))
        assert entropy(own) < np.log(len(tree)) - 0.2


def test_papers_hold_all_prompts_and_masks_and_eos() -> None:
    features = set()
    for paper in PAPERS:
        envs = sit(paper.name, **SMALL).envs(1).unwrapped
        features |= {("masks", envs.text_spec.has_masks), ("eos", bool(envs.text_spec.eos_ids))}
        if envs.task.has_prompts:
            assert envs.task.prompt_set.count == paper.prompts
        assert len(paper.betas) >= 2
    assert {("masks", True), ("eos", True)} <= features


def test_a_fresh_policy_is_the_reference_and_can_leave_it(exam: Exam) -> None:
    policy = exam.fresh_policy()
    spec = exam.envs(1).unwrapped.text_spec
    assert exam.grade(next_logprobs(policy, spec), 0.1)["kl"] == pytest.approx(0, abs=1e-9)
    assert all(parameter.requires_grad for parameter in policy.parameters())
    assert not any(parameter.requires_grad for parameter in exam.reference.parameters())


def test_the_best_policy_gets_full_marks_and_the_reference_none(exam: Exam) -> None:
    problem, beta = exam.problem, exam.paper.betas[0]
    tables = [
        tree.policy(logprobs) for tree, logprobs in zip(problem.trees, problem.tilted_logprobs(beta), strict=True)
    ]
    prompts = [tuple(tree.prompt_ids.tolist()) for tree in problem.trees]

    def tilted(rows: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        prompt = tuple(rows[0, : problem.trees[0].task.prompt_length].tolist())
        return tables[prompts.index(prompt)](rows, masks)

    best = exam.grade(tilted, beta)
    assert best["closed"] == pytest.approx(1, abs=1e-9)
    assert best["above"] <= 1e-9
    spec = exam.envs(1).unwrapped.text_spec
    assert exam.grade(next_logprobs(exam.reference, spec), beta)["closed"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_methods_learn_and_stay_under_the_frontier(method: str) -> None:
    exam = sit(PAPERS[0].name, **SMALL)
    examinee = METHODS[method](exam, 0.1, 0, 12_800)
    assert 0 < examinee.tokens <= 13_440
    grade = exam.grade(examinee.policy, 0.1)
    assert grade["closed"] > 0.1
    assert grade["above"] <= 1e-9
    assert grade["regret"] == pytest.approx(grade["optimal"] - grade["reward"] + 0.1 * grade["kl"], abs=1e-12)


def test_the_reference_is_not_touched_by_methods() -> None:
    exam = sit(PAPERS[0].name, **SMALL)
    before = ExactProblem(exam.envs(1), next_logprobs(exam.reference, exam.envs(1).unwrapped.text_spec)).ref_logprobs
    METHODS["PPO"](exam, 0.1, 0, 640)
    after = ExactProblem(exam.envs(1), next_logprobs(exam.reference, exam.envs(1).unwrapped.text_spec)).ref_logprobs
    assert np.array_equal(before[0], after[0])


def test_best_of_n_lies_under_the_frontier_within_its_bound(exam: Exam) -> None:
    for n in (2, 16, 128):
        result = exam.best_of_n(n, exam.paper.betas)
        assert result["kl"] <= result["bound"] + 1e-12
        assert result["reward"] <= exam.problem.reward_at(result["kl"]) + 1e-9
        assert max(result["closed"].values()) < 1


@pytest.mark.parametrize("beta", [0.05, 0.3])
def test_dpo_is_asked_for_the_same_policy_as_all_others(beta: float) -> None:
    """Its loss over all pairs of texts, labelled by the annotator, is lowest at π*, which is tilted by score / β."""
    exam = sit(PAPERS[0].name, **SMALL)
    rng = np.random.default_rng(0)
    index = rng.choice(len(exam.problem.trees[0]), size=400, p=np.exp(exam.problem.ref_logprobs[0]))
    scores = torch.from_numpy(exam.problem.scores[0][index])
    tilted = torch.from_numpy(exam.problem.tilted_logprobs(beta)[0][index])
    ratios = tilted - torch.from_numpy(exam.problem.ref_logprobs[0][index])
    chances = torch.sigmoid(ANNOTATOR_SCALE * (scores[:, None] - scores[None, :]))  # P(row is preferred to column)

    def loss(ratios: torch.Tensor) -> float:
        differences = (ratios[:, None] - ratios[None, :]).flatten()
        return float(dpo_loss(differences, chances.flatten() / chances.sum(), ANNOTATOR_SCALE * beta))

    best = loss(ratios)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert loss(factor * ratios) > best
    assert loss(ratios + 0.3 * torch.from_numpy(rng.normal(size=len(index)))) > best
    assert loss(ratios + 1.0) == pytest.approx(best)  # what all texts have in common drops out


def test_rest_keeps_the_round_with_the_best_objective() -> None:
    """Where leaving the reference is dear it stays there; where it is cheap it goes far."""
    exam = sit(PAPERS[0].name, **SMALL)
    assert exam.grade(rest(exam, 50.0, 0, 12_800).policy, 0.1)["kl"] < 0.05
    far, near = (exam.grade(rest(exam, beta, 0, 12_800).policy, beta) for beta in (0.01, 0.3))
    assert far["kl"] > near["kl"]
    assert far["reward"] > near["reward"]
