"""An SSH server on this machine's loopback that runs what it is told with a shell."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko


class Door(paramiko.ServerInterface):
    """Lets everyone in, and runs one command a channel."""

    def check_auth_publickey(self, _user: str, _key: Any) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, _user: str) -> str:
        return "publickey"

    def check_channel_request(self, _kind: str, _number: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=serve, args=(channel, command), daemon=True).start()
        return True


def serve(channel: paramiko.Channel, command: bytes) -> None:
    """Carry bytes to and fro until one side ends."""
    # An answer to this comes after our thread of the connection said yes to the command: a command
    # that ends before that would close the channel under the client's question.
    channel.get_transport().global_request("are-you-there", wait=True)
    with subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr

        def feed() -> None:
            with suppress(OSError, ValueError):  # it ended without having read all of it
                while data := channel.recv(1 << 16):
                    process.stdin.write(data)
                process.stdin.close()

        threading.Thread(target=feed, daemon=True).start()
        while data := process.stdout.read(1 << 16):
            channel.sendall(data)
        channel.sendall_stderr(process.stderr.read())
        channel.send_exit_status(process.wait())
        channel.close()


@contextmanager
def ssh_server(folder: Path) -> Iterator[int]:
    """Serve on a free port; `folder` gets `key` and `known_hosts` for clients."""
    own = paramiko.RSAKey.generate(2048)
    paramiko.RSAKey.generate(2048).write_private_key_file(str(folder / "key"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = f"[127.0.0.1]:{port} {own.get_name()} {own.get_base64()}\n"
        (folder / "known_hosts").write_text(line)
        opened: list[paramiko.Transport] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(client)
                transport.add_server_key(own)
                transport.start_server(server=Door())
                opened.append(transport)

        threading.Thread(target=accept, daemon=True).start()
        yield port
        for transport in opened:
            transport.close()
