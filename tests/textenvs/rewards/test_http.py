"""The remote scorer against real servers on loopback that fail in every way."""

from __future__ import annotations

import json
import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs import Episodes, RewardError
from textenvs.checking import check_reward
from textenvs.rewards import Judge, make_reward

Behaviour = Callable[["Handler"], None]
TEXTS = Episodes.from_texts(["p1", "p2", ""], ["a", "bb", "ccc"], {"target": ["x", "y", "z"]}, separator=" ")


class Server(ThreadingHTTPServer):
    """Answers the k-th request with the k-th behaviour, all further ones with the last."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = behaviours
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/score"

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """A client that hung up is expected here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(json.loads(body))
        self.server.headers.append(self.headers)
        self.server.behaviours[min(len(self.server.requests), len(self.server.behaviours)) - 1](self)

    def answer(self, body: bytes | object, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def lengths(handler: Handler) -> None:
    handler.answer({"scores": [len(text) for text in handler.server.requests[-1]["completions"]]})


def answers(body: bytes | object, status: int = 200, **headers: str) -> Behaviour:
    return lambda handler: handler.answer(body, status, **headers)


def hang_up(handler: Handler) -> None:
    """Reset the connection in the middle of the answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def trickle(start: bytes, drop: bytes) -> Behaviour:
    def send(handler: Handler) -> None:
        handler.wfile.write(start)
        for _ in range(600):
            handler.wfile.write(drop)
            handler.wfile.flush()
            time.sleep(0.05)

    return send


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*behaviours: Behaviour) -> Server:
        server = Server(*behaviours)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def remote(url: str, **arguments: Any) -> Any:
    return make_reward({"name": "http", "url": url, "timeout": 5.0, "retries": 2, "backoff": 0.01, **arguments})


# ------------------------------------------------------------------------------------------------- what is said


def test_one_post_for_each_batch_on_one_connection(serve: Callable[..., Server]) -> None:
    server = serve(lengths)
    reward = remote(server.url, headers={"authorization": "Bearer xyz"})
    scores = reward.score(TEXTS)
    assert (scores.dtype, scores.tolist()) == (np.float32, [1, 2, 3])
    assert reward.score(TEXTS.take(np.array([2]))).tolist() == [3]
    first, second = server.requests
    assert first == {"version": 1, "prompts": ["p1", "p2", ""], "completions": ["a", "bb", "ccc"], "separator": " "}
    assert second["completions"] == ["ccc"]
    assert server.connections == 1
    headers = server.headers[0]
    assert (headers["content-type"], headers["authorization"]) == ("application/json", "Bearer xyz")
    assert headers["accept-encoding"] == "identity"


def test_columns_go_along_as_text(serve: Callable[..., Server]) -> None:
    server = serve(lengths)
    envs = gym.make_vec(
        "textenvs/Reverse-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        reward={"name": "http", "url": server.url, "columns": ["target"]},
    )
    envs.reset(seed=0)
    for _ in range(4):
        _, rewards, *_ = envs.step(np.array([1, 2]))
    assert rewards.tolist() == [4, 4]
    (request,) = server.requests
    assert request["completions"] == ["1111", "2222"]
    assert request["columns"] == {"target": [prompt[::-1] for prompt in request["prompts"]]}


def test_forms_of_the_url(serve: Callable[..., Server]) -> None:
    server = serve(lengths)
    assert make_reward(f"http:{server.url}").score(TEXTS).tolist() == [1, 2, 3]
    assert make_reward(server.url).score(TEXTS).tolist() == [1, 2, 3]
    host = server.url.removeprefix("http://")
    assert make_reward(f"http://name:secret@{host}?key=secret").score(TEXTS).tolist() == [1, 2, 3]
    assert server.headers[-1]["authorization"].startswith("Basic ")


def test_a_proxy_of_the_environment_never_leads_to_this_machine(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert make_reward(serve(lengths).url).score(TEXTS).tolist() == [1, 2, 3]


def test_no_texts_no_post(serve: Callable[..., Server]) -> None:
    server = serve(lengths)
    assert remote(server.url).score(TEXTS.take(np.array([], dtype=np.int64))).shape == (0,)
    assert server.requests == []


def test_declared_properties_and_pickle(serve: Callable[..., Server]) -> None:
    reward = remote(serve(lengths).url, low=-1, high=3, deterministic=True, version="7")
    reward.score(TEXTS)
    copy = pickle.loads(pickle.dumps(reward))
    assert copy.score(TEXTS).tolist() == [1, 2, 3]
    judge = Judge(copy)
    assert (judge.low, judge.high, judge.deterministic, judge.version) == (-1, 3, True, f"7({reward.url})")
    with pytest.raises(RewardError, match="outside its declared range"):
        Judge(remote(reward.url, high=2))(TEXTS)


def test_fulfils_the_contract(serve: Callable[..., Server]) -> None:
    check_reward({"name": "http", "url": serve(lengths).url, "low": 0, "deterministic": True})


# ------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (answers(b"soup"), "is not JSON"),
        (answers(b"[" * 60_000), "is not JSON"),
        (answers([1, 2, 3]), "no list 'scores'"),
        (answers({"score": [1, 2, 3]}), "no list 'scores'"),
        (answers({"scores": 1}), "no list 'scores'"),
        (answers({"scores": [1, 2]}), "2 scores for 3 texts"),
        (answers(b'{"scores": [1, NaN, 3]}'), "score 1 is not a finite number but 'nan'"),
        (answers(b'{"scores": [1, 2, 1e999]}'), "score 2 is not a finite number but 'inf'"),
        (answers({"scores": [1, 2, 1e39]}), "score 2 is not a finite number"),  # beyond float32
        (answers({"scores": [1, None, 3]}), "score 1 is not a finite number but 'None'"),
        (answers({"scores": ["1", "2", "3"]}), "score 0 is not a finite number"),
        (answers({"scores": [True, 2, 3]}), "score 0 is not a finite number"),
        (answers(b"<html>", kind="text/html"), "not plain JSON but text/html"),
        (answers(b"x", content_encoding="gzip"), r"not plain JSON but application/json \(gzip\)"),
        (answers({"detail": "no such thing"}, 404), 'status 404, {"detail": "no such thing"}'),
        (answers(b"", 422), "status 422 "),
        (answers(b"", 302, location="/elsewhere"), "status 302 "),
        (answers(b"", 204), "status 204 "),
    ],
)
def test_wrong_answers_stop_at_once(serve: Callable[..., Server], behaviour: Behaviour, says: str) -> None:
    server = serve(behaviour)
    with pytest.raises(RewardError, match=says) as caught:
        remote(server.url).score(TEXTS)
    message = str(caught.value)
    assert "'http'" in message
    assert server.url in message
    assert "tries: 1" in message
    assert "prompt 'p1', completion 'a'" in message
    assert len(server.requests) == 1


def test_too_much_is_not_read_to_its_end(serve: Callable[..., Server]) -> None:
    sent: list[int] = []

    def flood(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        for i in range(10_000):
            handler.wfile.write(b"1" * 65_536)
            sent.append(i)

    with pytest.raises(RewardError, match=r"larger than the 65,920 bytes"):
        remote(serve(flood).url).score(TEXTS)
    assert len(sent) < 1_000


@pytest.mark.parametrize("fault", [answers(b"", 500), answers({"detail": "overloaded"}, 503), hang_up])
def test_passing_faults_are_tried_again(serve: Callable[..., Server], fault: Behaviour) -> None:
    server = serve(fault, fault, lengths)
    assert remote(server.url).score(TEXTS).tolist() == [1, 2, 3]
    assert len(server.requests) == 3


def test_lasting_faults_end_after_the_last_try(serve: Callable[..., Server]) -> None:
    server = serve(answers({"detail": "overloaded"}, 503))
    with pytest.raises(RewardError, match=r'status 503, {"detail": "overloaded"} \(tries: 3;'):
        remote(server.url).score(TEXTS)
    assert len(server.requests) == 3
    with pytest.raises(RewardError, match=r"tries: 1;"):
        remote(server.url, retries=0).score(TEXTS)


def test_waits_are_doubled(serve: Callable[..., Server]) -> None:
    server = serve(answers(b"", 500))
    start = time.monotonic()
    with pytest.raises(RewardError):
        remote(server.url, retries=3, backoff=0.05).score(TEXTS)
    assert 0.35 <= time.monotonic() - start < 3.0  # 0.05 + 0.1 + 0.2


def test_server_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(RewardError, match=rf"127.0.0.1:{port}/score: ConnectError: .*tries: 3;.*completion 'a'"):
        remote(f"http://127.0.0.1:{port}/score").score(TEXTS)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"


@pytest.mark.parametrize(
    "slow", [lambda handler: time.sleep(30), trickle(HEAD, b" "), trickle(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")]
)
def test_server_slow(serve: Callable[..., Server], slow: Behaviour) -> None:
    """The limit holds for the whole of a try, however the server dawdles."""
    start = time.monotonic()
    with pytest.raises(RewardError, match=r"no complete answer within 0.2 s \(tries: 2;"):
        remote(serve(slow).url, timeout=0.2, retries=1).score(TEXTS)
    assert time.monotonic() - start < 15  # of 30 s that the servers dawdle


def test_slow_once_then_well(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler: time.sleep(30), lengths)
    reward = remote(server.url, timeout=0.3)
    assert reward.score(TEXTS).tolist() == [1, 2, 3]
    assert reward.score(TEXTS).tolist() == [1, 2, 3]


def test_cancel_ends_the_tries(serve: Callable[..., Server]) -> None:
    server = serve(answers(b"", 500))
    reward = remote(server.url, retries=50, backoff=60)
    threading.Timer(0.2, reward.cancel).start()
    with pytest.raises(RewardError, match=r"status 500 \(tries: 1;"):
        reward.score(TEXTS)


def test_dies_mid_run(serve: Callable[..., Server]) -> None:
    """The run stops with the text; once the server is back, the same environment goes on."""
    server = serve(lengths)
    envs = gym.make_vec(
        "textenvs/Reverse-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        reward={"name": "http", "url": server.url, "retries": 1, "backoff": 0.01},
    )
    envs.reset(seed=0)
    for _ in range(8):
        envs.step(np.array([1, 2, 3]))
    assert len(server.requests) == 2
    server.shutdown()
    server.server_close()
    server.behaviours = (hang_up,)  # and the connection that is still open breaks
    for _ in range(3):
        envs.step(np.array([1, 2, 3]))
    with pytest.raises(RewardError, match=r"'http' got no scores from .*ConnectError.*completion '1111'"):
        envs.step(np.array([1, 2, 3]))
    other = serve(lengths)
    textenvs.set_reward(envs, {"name": "http", "url": other.url})
    envs.reset(seed=1)
    for _ in range(4):
        _, rewards, *_ = envs.step(np.array([1, 2, 3]))
    assert rewards.tolist() == [4, 4, 4]


def test_messages_show_no_secrets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    reward = remote(f"http://name:hidden@127.0.0.1:{port}/score?token=hidden", headers={"x": "hidden"}, retries=0)
    with pytest.raises(RewardError, match=f"127.0.0.1:{port}/score:") as caught:
        reward.score(TEXTS)
    assert "hidden" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"url": "127.0.0.1:8000/score"}, ValueError, "give a full URL such as 'http://127.0.0.1:8000/score'"),
        ({"url": "ftp://host/score"}, ValueError, "give a full URL"),
        ({"url": "http://"}, ValueError, "give a full URL"),
        ({"url": "http://[::"}, ValueError, "is not a URL"),
        ({"url": "http://h", "timeout": 0}, ValueError, "timeout must be a positive number"),
        ({"url": "http://h", "retries": -1}, ValueError, "retries must be at least 0"),
        ({"url": "http://h", "backoff": -1}, ValueError, "backoff must be"),
        ({"url": "http://h", "columns": [1]}, TypeError, "columns must be strings"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_reward({"name": "http", **arguments})


def test_columns_that_cannot_be_sent() -> None:
    with pytest.raises(RewardError, match=r"column 'answer', which this task does not have as text\. .*: target"):
        Judge(remote("http://h", columns=["answer"]))(TEXTS)
    episodes = Episodes.from_texts(["p"], ["c"], {"when": [{1, 2}]})
    with pytest.raises(RewardError, match="cannot send the columns when as JSON"):
        Judge(remote("http://h", columns=["when"]))(episodes)
