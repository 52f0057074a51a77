"""From an endpoint and a Linux user to a gRPC channel: docs/protocol.md, "Endpoints", "Hello" and "The secret", in Python.

grpcio connects by itself and cannot be given a connected socket, nor send a line before HTTP/2. So it reaches a
`unix:` endpoint without help only as root, for whom no hello is needed. For any other user, and for the other
endpoints, `Relay` stands between: a Unix socket of this process, in a folder of mode 0700, whose connections get the
handshakes done and are then copied byte by byte.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator

import grpc

DEFAULT_PORT = 777

# Seconds for connecting and both handshakes. A worker that is started takes tens of milliseconds.
HANDSHAKE_TIMEOUT = 10

# docs/protocol.md, "HTTP/2". grpcio has no setting for the connection's window; it grows it as it measures.
OPTIONS = [
    # Of a `unix:` target grpcio makes the socket's path, which no HTTP/2 server has to take for an authority.
    ("grpc.default_authority", "guestline"),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.http2.lookahead_bytes", 2 << 20),
    ("grpc.max_receive_message_length", 2 << 20),
]


class Refused(Exception):
    """The agent's answer to the hello: a reason for programs, a text for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text


class Unproven(Exception):
    """The agent did not prove that it has the VM's secret: it is not the one that was meant."""


def read_secret(path: str) -> bytes:
    """The first line: a second one, while the secret is changed, is for the agent."""
    with open(path, "rb") as file:
        return file.readline().rstrip(b"\n")


@contextlib.contextmanager
def connect(
    endpoint: str, user: str | None = None, secret: bytes | None = None
) -> Iterator[grpc.Channel]:
    """A channel to the agent. Without a user it is root, and sends no hello if there is no secret either."""
    if user is None and secret is None and endpoint.startswith("unix:"):
        with grpc.insecure_channel(endpoint, OPTIONS) as channel:
            yield channel
        return
    with Relay(endpoint, user, secret) as relay, grpc.insecure_channel(relay.target, OPTIONS) as channel:
        yield channel


def dial(endpoint: str, user: str | None, secret: bytes | None) -> socket.socket:
    """A connection on which HTTP/2 may begin."""
    kind, _, rest = endpoint.partition(":")
    address, _, port = rest.rpartition(":")
    if not port.isdigit() or not address:
        address, port = rest, str(DEFAULT_PORT)
    if kind == "vsock":
        connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        target = (int(address), int(port))
    elif kind in ("unix", "hybrid"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target = rest if kind == "unix" else address
    else:
        raise ValueError(f"{endpoint!r} is neither unix:, hybrid: nor vsock:")
    try:
        connection.settimeout(HANDSHAKE_TIMEOUT)
        connection.connect(target)
        if kind == "hybrid":
            connection.sendall(f"CONNECT {port}\n".encode())
            answer = read_line(connection, 128)
            if not answer.startswith("OK "):
                raise ConnectionError(f"the VMM answered {answer!r}: no agent listens there yet")
        if secret is not None:
            prove(connection, user or "root", secret)
        elif user is not None:
            exchange(connection, f"guestline/1 user={user}", "ok")
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def exchange(connection: socket.socket, line: str, expected: str) -> str:
    """Sends a line, and gives the one that comes back, if it begins with the word."""
    connection.sendall(line.encode() + b"\n")
    answer = read_line(connection, 1024)
    word, _, words = answer.partition(" ")
    if word == "error":
        reason, _, text = words.partition(" ")
        raise Refused(reason, text)
    if word == "ok" and expected == "challenge":
        raise Unproven("it has no secret")
    if word != expected:
        raise ConnectionError(f"no agent: it answered {answer!r}")
    return answer


def prove(connection: socket.socket, user: str, secret: bytes) -> None:
    """The hello of a VM with a secret: both sides show that they have it, and neither shows it."""

    def proof(side: str, text: str) -> str:
        return hmac.new(secret, f"guestline/1 {side}\n{text}".encode(), hashlib.sha256).hexdigest()

    hello = f"guestline/1 user={user} nonce={secrets.token_hex(32)}"
    challenge = exchange(connection, hello, "challenge")
    lines = f"{hello}\n{challenge}\n"
    answer = f"answer proof={proof('host', lines)}"
    reply = exchange(connection, answer, "ok")
    said, _, shown = reply.rpartition(" proof=")
    if not hmac.compare_digest(shown, proof("agent", f"{lines}{answer}\n{said}")):
        raise Unproven("its proof is wrong")


def read_line(connection: socket.socket, limit: int) -> str:
    """Up to the newline and not a byte further: what follows is HTTP/2. Empty if the other side closes."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        line += byte
        if len(line) > limit:
            raise ConnectionError("the line is too long")
    return line[:-1].decode()


class Relay:
    """A socket for grpcio, each of whose connections is one to the agent, with the handshakes done."""

    def __init__(self, endpoint: str, user: str | None, secret: bytes | None) -> None:
        self._target = (endpoint, user, secret)
        # To grpcio a refusal would only be a closed connection: one is tried here, so that it is an exception.
        dial(*self._target).close()
        self._folder = tempfile.TemporaryDirectory(prefix="guestline-")
        path = os.path.join(self._folder.name, "relay.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self.target = f"unix:{path}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = dial(*self._target)
            except (Refused, Unproven, OSError):
                # grpcio says UNAVAILABLE, and tries again at the next call.
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=copy, args=(source, sink), daemon=True).start()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends; then neither is of use, since HTTP/2 does not go on half closed."""
    try:
        while data := source.recv(1 << 20):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
