"""The dev server: what it serves, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from bascule.errors import InputError, SetupError
from bascule.server.app import create_app
from bascule.server.guard import check_origin
from bascule.server.run import listen, running
from bascule.server.wheel import WheelHouse

ROOT = Path(__file__).resolve().parent.parent.parent
BODY = bytes(range(256)) * 8


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "models" / "m" / "model.safetensors").write_bytes(BODY)
    (tmp_path / "models" / "m" / "model.gguf").write_bytes(BODY)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "models" / "link").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "models" / "m" / "loop").symlink_to("loop")
    return tmp_path / "models"


@pytest.fixture
def client(models: Path) -> Iterator[TestClient]:
    app = create_app(models=models, pyodide=models)
    with TestClient(app, base_url="http://localhost:8600") as result:
        yield result


def test_the_page_and_its_types(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "Bascule" in page.text
    script = client.get("/worker.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert client.get("/style.css").headers["content-type"].startswith("text/css")


def test_the_models_that_a_visitor_can_choose(client: TestClient, models: Path) -> None:
    for name, config in {
        "broken": "[" * 100_000,
        "classifier": (
            '{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}'
        ),
        "clip": '{"model_type": "clip"}',
        "converted": '{"suppress_ids": [], "suppress_ids_begin": []}',
        "encoder": '{"model_type": "bert", "architectures": ["BertModel"]}',
        "list": "[]",
        "llama": '{"model_type": "llama"}',
        "no-list": '{"model_type": "bert", "architectures": 5}',
        "no-string": '{"model_type": []}',
        "t5": '{"model_type": "t5"}',
        "unknown": '{"model_type": "mamba"}',
        "vit": '{"model_type": "vit"}',
    }.items():
        (models / name).mkdir()
        (models / name / "config.json").write_text(config)
    result = client.get("/models/index.json").json()["models"]
    assert {each["name"]: each["kind"] for each in result} == {
        "classifier": "classifier",
        "clip": "image-text-model",
        "converted": "speech-model",
        "encoder": "sentence-encoder",
        "llama": "language-model",
        "m": "language-model",
        "no-list": "sentence-encoder",
        "t5": "text-to-text",
        "vit": "image-model",
    }


@pytest.mark.parametrize("isolated", [True, False])
def test_isolation_headers(models: Path, isolated: bool) -> None:
    app = create_app(models=models, pyodide=models, isolated=isolated)
    with TestClient(app, base_url="http://localhost") as client:
        headers = client.get("/").headers
    assert ("cross-origin-opener-policy" in headers) == isolated
    assert ("cross-origin-embedder-policy" in headers) == isolated
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:80", "[::1]:99"])
def test_own_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "", "10.0.0.1:8600", "[::2]"],
)
def test_foreign_hosts_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "Bascule" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/models/../secret.txt",
        "/models/%2e%2e/secret.txt",
        "/models/..%2fsecret.txt",
        "/models/%2e%2e%2fsecret.txt",
        "/models//etc/passwd",
        "/models/%2fetc/passwd",
        "/models/link",
        "/models/m/loop",
        "/models/m",
        "/models/m/",
        "/models/",
        "/models/m/model.safetensors/x",
        "/models/m%00/model.safetensors",
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "/bridge",
        "/wheel/../../etc/passwd",
        "/wheel/bascule-9.9.9-py3-none-any.whl",
        "/nothing",
    ],
)
def test_no_path_leaves_its_root(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "name", ["page.html", "pyodide.mjs", "code.js", "a.svg", "a.wasm", "a.json"]
)
def test_a_models_folder_is_bytes_and_never_a_page(
    client: TestClient, models: Path, name: str
) -> None:
    (models / "m" / name).write_text("<script>alert(1)</script>")
    answer = client.get(f"/models/m/{name}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "content-security-policy" not in client.get("/").headers


def test_optional_files_of_a_model_are_missing_without_an_error(client: TestClient) -> None:
    for file in ("bascule-manifest.json", "1_Pooling/config.json"):
        answer = client.get(f"/models/m/{file}")
        assert (answer.status_code, answer.content) == (204, b"")
    for path in (
        "/models/m/model.bin",
        "/models/other/config.json",
        "/models/../x.json",
        "/x.json",
    ):
        assert client.get(path).status_code == 404


def test_another_origin_may_read_where_it_was_allowed(models: Path) -> None:
    origin = "http://localhost:3000"
    app = create_app(models=models, pyodide=models, cors=origin)
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.get("/models/m/model.gguf", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "ETag" in answer.headers["access-control-expose-headers"]
        preflight = client.options("/models/m/model.gguf", headers={"Origin": origin})
        assert preflight.status_code == 204
        assert "Range" in preflight.headers["access-control-allow-headers"]
        assert client.options("/", headers={"Host": "evil.example"}).status_code == 421
    with TestClient(
        create_app(models=models, pyodide=models), base_url="http://localhost"
    ) as other:
        assert "access-control-allow-origin" not in other.get("/").headers
        assert other.options("/").status_code == 405


@pytest.mark.parametrize("origin", ["localhost:3000", "http://a/b", "http://a b", "", "a\r\nb"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match="--cors"):
        check_origin(origin)
    assert check_origin("*") == "*"


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=5-9", 206, 5, 10),
        ("bytes=2000-", 206, 2000, 2048),
        ("bytes=-48", 206, 2000, 2048),
        ("bytes=2040-9999", 206, 2040, 2048),
    ],
)
def test_ranges(client: TestClient, asked: str, status: int, start: int, end: int) -> None:
    for file in ("model.safetensors", "model.gguf"):
        answer = client.get(f"/models/m/{file}", headers={"Range": asked})
        assert answer.status_code == status
        assert answer.content == BODY[start:end]
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BODY)}"


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=9999-10000"])
def test_ranges_past_the_end(client: TestClient, asked: str) -> None:
    answer = client.get("/models/m/model.safetensors", headers={"Range": asked})
    assert answer.status_code == 416


def test_etags(client: TestClient, models: Path) -> None:
    path = "/models/m/model.safetensors"
    first = client.get(path)
    etag = first.headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(path, headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    held = {"Range": "bytes=1-2", "If-Range": etag}
    assert client.get(path, headers=held).status_code == 206
    (models / "m" / "model.safetensors").write_bytes(BODY + b"more")
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200
    assert client.get(path, headers=held).status_code == 200


def test_the_wheel_carries_what_a_page_needs_and_no_junk(
    client: TestClient, tmp_path: Path
) -> None:
    name = client.get("/wheel/index.json").json()["wheel"]
    data = client.get(f"/wheel/{name}").content
    (tmp_path / name).write_bytes(data)
    with ZipFile(tmp_path / name) as wheel:
        names = wheel.namelist()
    for wanted in (
        "bascule/__init__.py",
        "bascule/web/bridge/gpu.js",
        "bascule/web/vendor/tokenizers.js",
        "bascule/web/vendor/tokenizers.LICENSE",
        "bascule/shaders/linear_block.wgsl",
        "bascule/shaders/parts/bias_add.wgsl",
    ):
        assert wanted in names
    junk = [n for n in names if "__pycache__" in n or "node_modules" in n or n.endswith(".pyc")]
    assert junk == []
    assert len(data) < 1_475_000


def test_a_changed_tree_makes_a_new_wheel(tmp_path: Path) -> None:
    (tmp_path / "py" / "bascule").mkdir(parents=True)
    (tmp_path / "web").mkdir()
    (tmp_path / "shaders").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "LICENSE").touch()
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    module = tmp_path / "py" / "bascule" / "__init__.py"
    module.write_text('__version__ = "0.1.0"\n')
    house = WheelHouse(tmp_path)
    first = house.current()
    assert house.current() == first
    module.write_text('__version__ = "0.1.0"\nNEW = 1\n')
    second = house.current()
    assert second.name != first.name
    with ZipFile(second) as wheel:
        assert b"NEW = 1" in wheel.read("bascule/__init__.py")


def test_the_wheels_folder_goes_with_the_app(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    app = create_app(models=models, pyodide=models)
    assert list((tmp_path / "tmp").iterdir()) == []  # none before somebody asks for the wheel
    for _ in range(2):  # an app that is started anew builds it anew
        with TestClient(app, base_url="http://localhost") as client:
            name = client.get("/wheel/index.json").json()["wheel"]
            assert client.get(f"/wheel/{name}").status_code == 200
            assert len(list((tmp_path / "tmp").glob("bascule-wheel-*"))) == 1
        assert list((tmp_path / "tmp").iterdir()) == []


def test_the_wheels_folder_goes_with_the_process(tmp_path: Path) -> None:
    code = "from bascule.server.wheel import WheelHouse; house = WheelHouse()"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}; print(house.current())"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(result.stdout.strip()).parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_told() -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"Port {port}.*--port 0"):
            listen(port)


async def test_a_body_does_not_wait_for_an_acknowledgement_of_its_headers() -> None:
    delayed: list[int] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delayed.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    sock = listen(0)
    async with await asyncio.start_server(answer, sock=sock):
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        await reader.read()
        writer.close()
    assert delayed == [1]


def test_a_download_that_never_ends_does_not_keep_the_server() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        async def body():
            yield b"first"
            await asyncio.Event().wait()

        if scope["type"] == "http":
            await StreamingResponse(body())(scope, receive, send)

    with running(endless) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1)
    client.settimeout(30)
    with client, contextlib.suppress(ConnectionResetError):
        while client.recv(1 << 16):  # until the server has closed the connection
            pass
