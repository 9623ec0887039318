"""Where a client's webhook may go, and where it may not by any spelling."""

import asyncio
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from agent_app.config import Jobs
from agent_app.errors import InvalidRequest
from agent_app.webhooks.destinations import Destinations, pin


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/",
        "http://localhost.:1/",
        "http://127.0.1.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "https://0.0.0.0/",
        "https://user:pass@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "https://",
        "nonsense",
        "https://xn--/",
        "https://8.8.8.8/",
    ],
)
async def test_a_webhook_to_where_it_may_not_go_is_refused(url: str) -> None:
    for allowed in (["*"], ["localhost"], ["*", "10.9.0.0/16"], ["127.0.0.0/32"]):
        with pytest.raises(InvalidRequest, match="webhook_url: "):
            await Destinations(allowed).resolve(url)


async def test_names_networks_and_public_addresses_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "hooks.example.com": ["93.184.216.34"],
        "in.example.com": ["10.1.2.3"],
        "both.example.com": ["93.184.216.34", "10.1.2.3"],
    }

    async def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 0)) for address in answers[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    public = Destinations(["*.example.com"])
    assert await public.resolve("https://hooks.example.com/x") == ["93.184.216.34"]
    for host in ("in", "both"):
        with pytest.raises(InvalidRequest, match="may not go to"):
            await public.resolve(f"https://{host}.example.com/")
    for url in ("http://hooks.example.com/", "https://example.com/", "https://example.com.evil/"):
        with pytest.raises(InvalidRequest):
            await public.resolve(url)
    private = Destinations(["in.example.com", "10.1.0.0/16"])
    assert await private.resolve("http://in.example.com/") == ["10.1.2.3"]
    assert await private.resolve("http://10.1.9.9/") == ["10.1.9.9"]
    with pytest.raises(InvalidRequest):
        await private.resolve("https://hooks.example.com/")


def test_a_post_goes_to_the_checked_address_and_names_the_host() -> None:
    url, headers, extensions = pin("https://hooks.example.com:8443/a?b=c", "2606:4700::1")
    assert url == httpx2.URL("https://[2606:4700::1]:8443/a?b=c")
    assert headers == {"Host": "hooks.example.com:8443"}
    assert extensions == {"sni_hostname": "hooks.example.com"}


@pytest.mark.parametrize("entry", ["", "http://example.com", "a b", "10.0.0.1/8", "*.*"])
def test_a_wrong_entry_of_the_allow_list_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="host name, address or network"):
        Jobs(webhook_hosts=(entry,))
