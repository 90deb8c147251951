"""The server for reward models: in this process, and as the script with the reward "http" as its client."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from textenvs import Episodes, RewardError
from textenvs.rewards import Judge, make_reward
from textenvs.rewards.serving import create_app

SCRIPT = Path(__file__).parents[3] / "scripts" / "serve_reward.py"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app("regex:ab", max_body_bytes=2_000)) as client:
        yield client


def request(**changes: Any) -> dict[str, Any]:
    return {"version": 1, "prompts": ["", "p"], "completions": ["cab", "ba"], **changes}


def test_scores(client: TestClient) -> None:
    answer = client.post("/score", json=request())
    assert (answer.status_code, answer.json()) == (200, {"scores": [1.0, 0.0]})
    assert client.post("/score", json=request(prompts=[], completions=[])).json() == {"scores": []}


def test_health(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "schema_version": 1,
        "reward": "regex",
        "reward_version": "1(pattern='ab', mode='search', ignore_case=False)",
        "low": 0.0,
        "high": 1.0,
        "deterministic": True,
    }
    with TestClient(create_app("length")) as unbounded:
        assert unbounded.get("/health").json()["high"] is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (request(version=2), "body.version: Input should be 1"),
        ({"prompts": [], "completions": []}, "body.version: Field required"),
        (request(prompts="ab"), "body.prompts: Input should be a valid list"),
        (request(completions=["a", 3]), "body.completions.1: Input should be a valid string"),
        (request(completions=["a"]), "There are 2 prompts but 1 entries in 'completions'."),
        (request(columns={"x": [1]}), "There are 2 prompts but 1 entries in 'x'."),
        (request(columns={"x_ids": [[1], [2]]}), "mean nothing without their vocab"),
        (request(soup=1), "body.soup: Extra inputs are not permitted"),
        ([1], "body: Input should be"),
    ],
)
def test_requests_that_are_not_as_agreed(client: TestClient, body: object, says: str) -> None:
    answer = client.post("/score", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_no_json(client: TestClient) -> None:
    answer = client.post("/score", content=b"soup", headers={"content-type": "application/json"})
    assert (answer.status_code, "JSON decode error" in answer.json()["detail"]) == (422, True)


def test_too_large_a_request(client: TestClient) -> None:
    answer = client.post("/score", json=request(completions=["a" * 2_000, "b"]))
    assert answer.status_code == 413
    assert answer.json()["detail"] == "The request is larger than 2,000 bytes: send smaller batches."


def test_a_reward_that_fails() -> None:
    with TestClient(create_app("exact_match")) as client:
        answer = client.post("/score", json=request())
        assert answer.status_code == 500
        assert "compares with the column 'target', which this task does not have" in answer.json()["detail"]
        answer = client.post("/score", json=request(columns={"target": ["cab", "x"]}))
        assert answer.json() == {"scores": [1.0, 0.0]}


@pytest.fixture
def served() -> Iterator[tuple[subprocess.Popen[str], str]]:
    spec = json.dumps([[1.0, "lexicon_sentiment:text"], [0.5, "exact_match"]])
    root = str(SCRIPT.parents[1])
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT), spec, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert server.stdout is not None
    try:
        yield server, server.stdout.readline()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_the_script_and_its_client(served: tuple[subprocess.Popen[str], str]) -> None:
    server, line = served
    assert line.startswith("serving reward weighted_sum on http://127.0.0.1:")
    url = line.split()[-1]
    episodes = Episodes.from_texts(["not", "so"], ["good", "fine"], {"target": ["good", "x"]}, separator=" ")
    reward = make_reward({"name": "http", "url": url, "columns": ["target"], "retries": 1, "backoff": 0.01})
    here = make_reward([(1.0, "lexicon_sentiment:text"), (0.5, "exact_match")])
    np.testing.assert_array_equal(reward.score(episodes), here.score(episodes))
    np.testing.assert_allclose(reward.score(episodes)[0], 0.5 - 0.3412, atol=5e-5)  # "not good" is read as one text
    with pytest.raises(RewardError, match=r"status 500, .*compares with the column 'target'.*tries: 2;"):
        Judge(make_reward({"name": "http", "url": url, "retries": 1, "backoff": 0.01}))(episodes)
    server.send_signal(signal.SIGTERM)
    server.wait(timeout=20)
    with pytest.raises(RewardError, match="ConnectError"):
        reward.score(episodes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["matches"], "Cannot build the reward 'matches': Unknown reward 'matches'"),
        (['{"name": '], "Cannot build the reward"),
        (["length", "--host", "203.0.113.7", "--port", "0"], "Cannot listen on 203.0.113.7"),
        (["length", "--port", "99999"], "--port must lie in 0 … 65535, got 99999"),
        (["length", "--max-body-mib", "0"], "--max-body-mib must be positive, got 0"),
    ],
)
def test_the_script_says_why_it_cannot(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_reward.py", *arguments])
    with pytest.raises(SystemExit, match=says):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_without_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serve_reward.py", "length"])
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'textenvs\[serve\]'"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
