"""Requests under foreign names, from foreign pages or of any length do not reach the page."""

import pytest

pytest.importorskip("gradio")
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from emoser.demo import DemoOptions
from emoser.demo.guard import MAX_MESSAGE_BYTES
from emoser.demo.page import _launch_arguments


async def count(request: Request) -> PlainTextResponse:
    """The length of what was sent."""
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture(scope="module")
def client():
    """An application behind the middleware that the demo gives to Gradio."""
    options = DemoOptions(host="0.0.0.0", allowed_hosts=("demo.example",))
    middleware: list[Middleware] = _launch_arguments(options)["app_kwargs"]["middleware"]
    paths = ("/gradio_api/component_server", "/gradio_api/upload")
    routes = [Route(path, count, methods=["GET", "POST"]) for path in paths]
    return TestClient(Starlette(routes=routes, middleware=middleware))


PATH = "/gradio_api/component_server"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("192.168.1.5", 200),
        ("demo.example", 200),
        ("DEMO.example:443", 200),
        ("evil.example", 403),
        ("evil.example:7860", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("demo.example.evil.example", 403),
        ("", 403),
    ],
)
def test_only_known_names_are_answered(client, host, status):
    assert client.get(PATH, headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost", 200), ("https://demo.example", 200), ("http://evil.example", 403)],
)
def test_only_pages_of_the_demo_may_send(client, origin, status):
    sent = client.post(PATH, headers={"host": "localhost", "origin": origin}, content=b"{}")
    assert sent.status_code == status


@pytest.mark.parametrize("chunked", [False, True])
def test_messages_end_at_a_limit_and_uploads_do_not(client, chunked):
    def send(path, size):
        content = iter([bytes(size // 2), bytes(size - size // 2)]) if chunked else bytes(size)
        return client.post(path, headers={"host": "localhost"}, content=content)

    assert send(PATH, MAX_MESSAGE_BYTES).text == str(MAX_MESSAGE_BYTES)
    assert send(PATH, MAX_MESSAGE_BYTES + 1).status_code == 413
    assert send("/gradio_api/upload", MAX_MESSAGE_BYTES + 1).text == str(MAX_MESSAGE_BYTES + 1)
