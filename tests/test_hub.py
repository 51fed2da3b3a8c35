"""The hub: encoders and runs by name, from a server on this machine that answers as the hub does."""

import hashlib
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from helpers import RECORD, cli, write_corpus

from support import encoders, hub
from support.errors import InputError

NOTHING = "no such folder, and no model on the hub that can be read without a login"
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves each folder USER/NAME below `root` as a repository of the hub, at one revision."""

    root: Path
    asked: list

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(*self.find(), with_body=False)

    def do_GET(self):
        self.answer(*self.find())

    def find(self):
        """The status, the headers and the content of what is asked for."""
        parts = self.path.split("?")[0].strip("/").split("/")
        self.asked.append(self.path)
        if parts[:2] == ["api", "models"]:
            folder = self.root / "/".join(parts[2:4])
            if not folder.is_dir():
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            files = [path for path in folder.rglob("*") if path.is_file()]
            if "tree" in parts:
                return 200, {}, json.dumps([self.describe(path, folder) for path in files]).encode()
            names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            facts = {"id": "/".join(parts[2:4]), "sha": REVISION, "siblings": names, "tags": []}
            return 200, {}, json.dumps(facts).encode()
        path = self.root.joinpath(*parts[:2], *parts[4:])
        if not path.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = path.read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content

    def describe(self, path, folder):
        """A file as the hub lists it."""
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        return {"type": "file", "path": name, "size": size, "oid": "1"}

    def answer(self, status, headers, content, with_body=True):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), "X-Repo-Commit": REVISION, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def server(tmp_path):
    """A hub: its folder, what it was asked for, and the environment in which it is the hub."""
    handler = type("OwnHandler", (Handler,), {"root": tmp_path / "hub", "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        env = dict(HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_XET="1", SPANREL_SHAPES="off")
        env["HF_ENDPOINT"] = f"http://127.0.0.1:{running.server_address[1]}"
        yield handler.root, handler.asked, env
        running.shutdown()


@pytest.mark.slow
def test_an_encoder_of_the_hub_trains_a_run_that_the_hub_gives_out(tmp_path, server):
    root, asked, env = server
    folder = root / "lab/encoder"
    tokenizer, encoder = encoders.load_encoder("tiny", [RECORD["tokens"]])
    encoder.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), folder / "pytorch_model.bin")  # SciBERT has this and a vocabulary
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    write_corpus(tmp_path / "mine", [RECORD])
    run = tmp_path / "run"
    flags = ["--dataset", tmp_path / "mine", "--encoder", "lab/encoder", "--epochs", 1, "--output", run]
    done = cli(*flags, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "config.json").read_text())["encoder_revision"] == REVISION
    count = len(asked)
    done = cli(*flags[:-1], tmp_path / "second", **env)  # from the copy
    assert done.returncode == 0 and len(asked) == count
    shutil.copytree(run, root / "lab/run")
    (root / "lab/run/evil.py").write_text("raise SystemExit(9)")
    for name in ("lab/run", f"lab/run@{REVISION}"):
        done = cli("--load", name, "--predict", "a b", "--format", "json", **env)
        assert done.returncode == 0 and json.loads(done.stdout)[0]["tokens"] == ["a", "b"], done.stderr
    assert not any("evil.py" in path or "predictions" in path for path in asked)
    done = cli("--load", "lab/nothing", "--predict", "a b", **env)
    assert done.returncode == 2
    assert done.stderr == f"--load lab/nothing: {NOTHING}\n"


def fake_hub(monkeypatch, folder, listed):
    """The hub's client, which answers with a folder; returns what it is asked for."""
    import huggingface_hub

    asked = []

    class Hub:
        def model_info(self, name, revision, timeout):
            asked.append((name, revision, "which files"))
            siblings = [type("File", (), {"rfilename": file}) for file in listed]
            return type("Info", (), {"siblings": siblings})

    def snapshot_download(name, revision, local_files_only=False, allow_patterns=(), ignore_patterns=""):
        asked.append((name, revision, "a copy" if local_files_only else allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return asked


WEIGHTS = [(["a.bin", "b.safetensors"], ["*.safetensors"]), (["a.bin"], ["*.safetensors", "*.bin"])]


@pytest.mark.parametrize("listed, wanted", WEIGHTS)
def test_a_copy_that_is_whole_is_used_without_asking_the_hub(tmp_path, monkeypatch, listed, wanted):
    asked = fake_hub(monkeypatch, tmp_path, listed)
    files = ["*.safetensors", "*.bin"]
    assert hub.fetch_repository("--x", "a/b", files, lambda folder: True, "") == tmp_path
    assert asked == [("a/b", None, "a copy")]
    asked.clear()
    assert hub.fetch_repository("--x", "a/b@v1", files, lambda folder: False, "") == tmp_path
    assert asked == [("a/b", "v1", "a copy"), ("a/b", "v1", "which files"), ("a/b", "v1", wanted)]


def test_a_hub_that_lists_too_slowly_is_not_waited_for(tmp_path, monkeypatch):
    import huggingface_hub

    fake_hub(monkeypatch, tmp_path, ["a.bin"])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *given, **more: threading.Event().wait())
    monkeypatch.setattr(hub, "PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"^--x a/b .* \(TimeoutError: it takes more than 0.1 s\): advice$"):
        hub.fetch_repository("--x", "a/b", [], lambda folder: False, "advice")


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_a_malformed_variable_of_the_hub_is_one_line(tmp_path, name):
    done = cli("--output", tmp_path / "run", **{name: "http://["})
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("transformers cannot be used (ValueError: ") and "HF_ENDPOINT" in line


def test_an_encoder_is_whole_with_config_weights_and_tokenizer(tmp_path):
    for weights, tokenizer in (("pytorch_model.bin", "vocab.txt"), ("model.safetensors", "tokenizer.json")):
        folder = tmp_path / weights
        folder.mkdir()
        for name in ("config.json", weights, tokenizer):
            assert not encoders.is_encoder(folder)
            (folder / name).touch()
        assert encoders.is_encoder(folder)


def test_what_is_no_name_of_the_hub_is_one_line():
    with pytest.raises(InputError, match=f"^--encoder a//b: {NOTHING}$"):
        encoders.locate_encoder("a//b")


def test_only_a_folder_of_the_hubs_client_has_a_revision():
    assert hub.revision_of(f"home/models--a--b/snapshots/{REVISION}") == REVISION
    assert hub.revision_of("data/minilm-l6") == ""
