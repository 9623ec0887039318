"""A client of the agent app's `POST /chat`, over verified HTTPS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from ops.errors import OpsError

SECONDS_OF_SILENCE = 120


class KeyRefusedError(OpsError):
    """The API key is not, or no longer, known."""


@dataclass(frozen=True)
class Chat:
    """Where to chat, as whom.

    Args:
        address: of the edge; DNS is not asked, a lab's domain is in none.
        domain: the name that the certificate must have.
        roots: PEM text of the roots to trust.
        key: an API key.
    """

    address: str
    domain: str
    roots: str
    key: str

    def stream(self, message: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Send a message in a new thread and yield (event, data) as they come.

        Raises:
            KeyRefusedError: 401.
            OpsError: any other refusal, or the connection broke.
        """
        context = ssl.create_default_context(cadata=self.roots)
        headers = {"Host": self.domain, "Authorization": f"Bearer {self.key}"}
        place = f"https://{self.domain}/chat at {self.address}"
        try:
            with (
                httpx2.Client(verify=context, timeout=SECONDS_OF_SILENCE) as client,
                client.stream(
                    "POST",
                    f"https://{self.address}/chat",
                    json={"message": message},
                    headers=headers,
                    extensions={"sni_hostname": self.domain},
                ) as response,
            ):
                if response.status_code == httpx2.codes.UNAUTHORIZED:
                    raise KeyRefusedError("the API key is refused", place=place)
                if response.status_code != httpx2.codes.OK:
                    text = response.read().decode(errors="replace")[:500]
                    raise OpsError(f"the app answers {response.status_code}: {text}", place=place)
                yield from events(response.iter_lines())
        except httpx2.TransportError as error:
            raise OpsError(
                f"the connection failed: {error}", place=place, cure="ops verify -i inventories/lab"
            ) from error


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read server-sent events; comments, which keep a connection alive, are passed over."""
    name, data = "message", []
    for line in lines:
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield name, json.loads("\n".join(data))
            name, data = "message", []
