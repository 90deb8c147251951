"""Episodes are part of what "-v0" promises: who changes one of these numbers makes a new version."""

from __future__ import annotations

from typing import Any

import pytest

from textenvs import TextVectorEnv
from textenvs.tasks import make_task

PROMPTS: list[tuple[str, dict[str, Any], list[list[list[int]]]]] = [
    ("Copy", {}, [[[4, 0, 4, 5], [0, 5, 3, 4], [5, 5, 6, 1]], [[7, 1, 6, 7], [7, 5, 6, 2], [4, 3, 0, 0]]]),
    (
        "Copy",
        {"split": "test"},
        [[[3, 0, 1, 6], [7, 6, 1, 5], [0, 2, 0, 3]], [[6, 1, 3, 7], [7, 6, 4, 3], [0, 3, 6, 1]]],
    ),
    (
        "Reverse",
        {"min_length": 2},
        [[[9, 0, 4, 3], [9, 9, 1, 0], [9, 6, 1, 7]], [[9, 6, 2, 3], [9, 4, 6, 2], [9, 9, 5, 2]]],
    ),
    (
        "Sort",
        {"length": 12, "min_length": 11},
        [
            [
                [9, 0, 6, 6, 3, 5, 2, 4, 7, 4, 6, 6],
                [9, 4, 2, 1, 4, 2, 2, 2, 5, 1, 0, 7],
                [7, 5, 0, 0, 1, 7, 7, 2, 4, 6, 1, 4],
            ],
            [
                [9, 5, 5, 5, 3, 0, 2, 0, 6, 0, 0, 0],
                [9, 1, 4, 6, 3, 6, 7, 6, 4, 1, 3, 2],
                [9, 6, 5, 0, 2, 1, 5, 1, 7, 0, 2, 4],
            ],
        ],
    ),
]


@pytest.mark.parametrize(("name", "sizes", "episodes"), PROMPTS)
def test_prompts_of_seeds_7_to_9(name, sizes, episodes):
    envs = TextVectorEnv(name, num_envs=3, **sizes)
    length = envs.text_spec.prompt_length
    assert envs.reset(seed=7)[0][:, :length].tolist() == episodes[0]
    assert envs.reset()[0][:, :length].tolist() == episodes[1]


TEXTS: list[tuple[str, dict[str, Any], list[list[str]]]] = [
    ("Dyck", {}, [["[[[{", "{[([", "{(({"], ["([[{", "[({[", "[{({"]]),
    ("PalindromeMasked", {}, [["1730", "5271", "6753"], ["5274", "6753", "6043"]]),
    ("Anagram", {"split": "test"}, [["70541", "67123", "36527"], ["46721", "01427", "76521"]]),
    ("Addition", {"digits": 3}, [["69+81=", "99+5=", "968+60="], ["870+48=", "416+13=", "7+7="]]),
    ("Countdown", {}, [["6,1,4=1", "2,5,7=49", "5,9,3=48"], ["5,9,9=54", "8,1,4=28", "7,1,6=14"]]),
    ("RandomWalk", {}, [["q", "m", "t"], ["o", "j", "m"]]),
    ("ModSum", {}, [["031", "143", "351"], ["543", "443", "116"]]),
    ("ProbeBoth", {}, [["00010", "11011", "01100"], ["11111", "00011", "01001"]]),
]


@pytest.mark.parametrize(("name", "sizes", "episodes"), TEXTS)
def test_prompts_as_text_of_seeds_7_to_9(name, sizes, episodes):
    envs = TextVectorEnv(name, num_envs=3, info_text=True, **sizes)
    assert envs.reset(seed=7)[1]["prompt"].tolist() == episodes[0]
    assert envs.reset()[1]["prompt"].tolist() == episodes[1]


def test_keys_of_the_judge():
    envs = TextVectorEnv("Copy", num_envs=2, length=1)
    envs.reset(seed=7)
    assert [envs.step([0, 0])[4]["final_info"]["key"].tolist() for _ in range(2)] == [
        [9351301419765037533, 9927799875401487916],
        [15824311263734336937, 8978016928158630001],
    ]


@pytest.mark.parametrize(
    ("name", "attribute", "hidden"),
    [
        ("HiddenTarget", "target", [[8, 14, 6, 7, 4, 11, 2, 10], [5, 15, 14, 6, 8, 15, 7, 15]]),
        ("PrefixLock", "target", [[0, 6, 6, 7, 4, 3, 2, 2], [5, 7, 6, 6, 0, 7, 7, 7]]),
        ("Keywords", "keywords", [[29, 6, 17, 34], [34, 43, 49, 31]]),
        (
            "BigVocab",
            "keywords",
            [[837, 318, 1268, 1092, 3828, 1478, 2514, 3783], [1894, 951, 1450, 2240, 1979, 4017, 692, 3797]],
        ),
        ("RewardSwap", "targets", [[[0, 6, 6, 7, 4, 3], [4, 5, 1, 4, 3, 7]], [[5, 7, 6, 6, 0, 7], [1, 5, 4, 1, 1, 6]]]),
        ("Deceptive", "target", [[0, 2, 2, 3, 0, 3], [1, 3, 2, 2, 0, 3]]),
        ("Deceptive", "lure", [[3, 0, 3, 1, 2, 0], [0, 0, 3, 1, 3, 0]]),
    ],
)
def test_what_is_hidden_under_task_seeds_0_and_1(name, attribute, hidden):
    assert [getattr(make_task(name, task_seed=seed), attribute).tolist() for seed in (0, 1)] == hidden


def test_modes_and_graphs_under_task_seeds_0_and_1():
    modes = [["".join(map(str, mode)) for mode in make_task("BitModes", task_seed=seed).modes] for seed in (0, 1)]
    assert modes == [
        ["0001010000101011", "1011011001000110", "0000010011011100", "1010011010110001"],
        ["1100011111100111", "1111101101010101", "0001111000110111", "0010001010000101"],
    ]
    graphs = [make_task("RandomWalk", task_seed=seed).successors for seed in (0, 1)]
    assert graphs[0][1:5] == ((11,), (3, 5, 9, 13), (2, 15), (6, 12, 20))
    assert graphs[1][1:5] == ((9, 12, 20), (3, 4), (5, 10), (17,))
