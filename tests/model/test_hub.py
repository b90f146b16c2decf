"""The hub's own client against a server on this machine that answers as the hub does, and against no network."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from model_cases import SMALL

from vipocc.errors import CheckpointError
from vipocc.model.hub import find_model
from vipocc.model.network import ViPOcc

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two commits of one repository."""
    root = tmp_path_factory.mktemp("hub")
    for seed, commit in enumerate((COMMIT, OLDER)):
        torch.manual_seed(seed)
        ViPOcc(SMALL).save_pretrained(root / commit)
    return root


@pytest.fixture
def cache(repository: Path, tmp_path: Path) -> Path:
    """A cache of the hub's layout that holds the repository `somebody/model` at both commits."""
    model = tmp_path / "cache" / "models--somebody--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    for commit in (COMMIT, OLDER):
        (model / "snapshots").mkdir(exist_ok=True)
        (model / "snapshots" / commit).symlink_to(repository / commit)
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", unexpected)
    monkeypatch.setattr(socket, "getaddrinfo", unexpected)


def same(model: ViPOcc, folder: Path) -> bool:
    other = ViPOcc.from_pretrained(folder).state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("no_network")
def test_the_cache_is_enough(repository: Path, cache: Path) -> None:
    assert same(ViPOcc.from_pretrained("somebody/model", cache_dir=cache), repository / COMMIT)
    assert same(ViPOcc.from_pretrained("somebody/model", revision=OLDER, cache_dir=cache), repository / OLDER)
    assert not same(ViPOcc.from_pretrained("somebody/model", revision=OLDER, cache_dir=cache), repository / COMMIT)


@pytest.mark.usefixtures("no_network")
def test_what_is_not_in_the_cache_names_the_way_on_when_offline(cache: Path) -> None:
    # tests/conftest.py sets HF_HUB_OFFLINE.
    for name, revision in (("somebody/other", None), ("somebody/model", "c" * 40)):
        with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set.*hf download .* --local-dir") as caught:
            ViPOcc.from_pretrained(name, revision=revision, cache_dir=cache)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_a_folder_wins_over_a_hub_id(repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "somebody").mkdir()
    (cache / "somebody" / "model").symlink_to(repository / OLDER)
    monkeypatch.chdir(cache)
    assert same(ViPOcc.from_pretrained("somebody/model", cache_dir=cache), repository / OLDER)
    with pytest.raises(CheckpointError, match="no revisions"):
        find_model("somebody/model", revision="main", cache_dir=cache)


@pytest.mark.parametrize(
    "name", ["absent", "runs/x/checkpoints/step_3", "./owner/name", Path("owner/name"), "/no/where"]
)
@pytest.mark.usefixtures("no_network")
def test_what_is_neither_is_one_sentence(name: str | Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and it is no id of a hub repository"):
        ViPOcc.from_pretrained(name)


class _Hub(BaseHTTPRequestHandler):
    """Answers `/owner/name/resolve/REVISION/FILE` as the hub does."""

    def __init__(self, root: Path, *args: object) -> None:
        self.root = root
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        owner, name, revision, file = (parts[0], parts[1], parts[3], parts[4]) if len(parts) == 5 else ("",) * 4
        if owner != "somebody":
            return self._error(401, "RepoNotFound")
        commit = COMMIT if revision == "main" else revision
        if name == "gated":
            return self._error(403, "GatedRepo")
        if not (self.root / commit).is_dir():
            return self._error(404, "RevisionNotFound")
        path = self.root / commit / file
        if not path.is_file() or (name == "weightless" and file == "model.safetensors"):
            return self._error(404, "EntryNotFound")
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(repository: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Hub, repository))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


_ASK = """
import json, sys, time
time.sleep = lambda _: None  # between the client's six attempts
from vipocc.errors import CheckpointError
from vipocc.model.hub import find_model

for name, revision in json.loads(sys.argv[1]):
    try:
        print(find_model(name, revision=revision, cache_dir=sys.argv[2]))
    except CheckpointError as error:
        print(str(error))
"""


def ask(endpoint: str, cache: Path, *wanted: tuple[str, str | None]) -> list[str]:
    """Answers of a fresh process, since the hub's client reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache)}
    command = [sys.executable, "-c", _ASK, json.dumps(wanted), str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


def test_a_model_comes_from_the_hub_once_and_its_faults_are_told_apart(
    hub: str, repository: Path, tmp_path: Path
) -> None:
    answers = ask(
        hub,
        tmp_path,
        ("somebody/model", None),
        ("somebody/model", OLDER),
        ("nobody/model", None),
        ("somebody/model", "v9"),
        ("somebody/weightless", None),
        ("somebody/gated", None),
    )
    assert len(answers) == 6
    newest, older = Path(answers[0]), Path(answers[1])
    for folder, commit in ((newest, COMMIT), (older, OLDER)):
        assert folder.name == commit
        for file in ("config.yaml", "model.safetensors"):
            assert (folder / file).read_bytes() == (repository / commit / file).read_bytes()
    assert "no such hub repository: nobody/model" in answers[2]
    assert "no revision 'v9': somebody/model at v9" in answers[3]
    assert "holds no model.safetensors" in answers[4]
    assert "access to this hub repository has to be granted" in answers[5]
    # Nothing listens there any more than on a machine without network.
    again = ask("http://127.0.0.1:9", tmp_path, ("somebody/model", None), ("somebody/other", None))
    assert again[0] == answers[0]
    assert "the hub cannot be reached" in again[1]
    assert "hf download somebody/other" in again[1]
