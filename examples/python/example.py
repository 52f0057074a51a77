"""A client of Guestline in Python, from nothing but proto/ and docs/protocol.md.

    python3 -m venv venv
    venv/bin/pip install --requirement requirements.txt
    venv/bin/python generate.py generated
    PYTHONPATH=generated venv/bin/python example.py unix:/run/agent.sock alice

The endpoint and the user may also be GUESTLINE_VM and GUESTLINE_USER. Where the VM has a secret, GUESTLINE_SECRET_FILE
names the file with it. It must print what is in expected.txt; `cargo xtask test` checks that.
"""

import os
import queue
import sys
from collections.abc import Iterator

import grpc
from grpc_status import rpc_status
from guestline.v1 import (
    errors_pb2,
    files_pb2,
    files_pb2_grpc,
    processes_pb2,
    processes_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
)

from connection import Refused, connect, read_secret

CHUNK = 1 << 20


def main() -> None:
    arguments = dict(enumerate(sys.argv))
    endpoint = arguments.get(1) or os.environ["GUESTLINE_VM"]
    user = arguments.get(2) or os.environ.get("GUESTLINE_USER", "alice")

    # Never the secret itself: other users see a process's arguments, and sometimes its environment.
    secret_file = os.environ.get("GUESTLINE_SECRET_FILE")
    secret = read_secret(secret_file) if secret_file else None

    # Plain gRPC, as any generated stub speaks it, is root. Where there is a secret, it needs the hello too.
    with connect(endpoint, None, secret) as channel:
        print("as root:", who(channel))

    with connect(endpoint, user, secret) as channel:
        print("as the user:", who(channel))
        write_file(channel, b"example.txt", b"written by Python\n" * 3)
        print("the file:", read_file(channel, b"example.txt"))
        # Unbuffered both ways: the program waits for us between its lines.
        line = b"echo ready; read -r word; echo got $word; echo trouble >&2; exit 3"
        print("the program ended:", run(channel, line, {b"ready\n": b"a word\n"}))
        print("killed by itself:", run(channel, b"kill -9 $$", {}))
        try:
            read_file(channel, b"/proc/1/environ")
        except grpc.RpcError as error:
            print("refused by the kernel:", explain(error))

    try:
        with connect(endpoint, "mallory", secret):
            pass
    except Refused as refused:
        print("refused by the agent:", refused.reason)


def who(channel: grpc.Channel) -> str:
    # A deadline for every call that is not meant to last: the guest keeps it, too.
    info = system_pb2_grpc.SystemStub(channel).Info(system_pb2.InfoRequest(), timeout=30)
    return f"{info.identity.user.decode()}, uid {info.identity.uid}"


def read_file(channel: grpc.Channel, path: bytes) -> bytes:
    """`opened` with the metadata, then `data` up to the end of the stream. Paths are bytes."""
    stub = files_pb2_grpc.FilesStub(channel)
    content = bytearray()
    for answer in stub.Read(files_pb2.ReadRequest(path=path), timeout=30):
        if answer.WhichOneof("message") == "data":
            content += answer.data
    return bytes(content)


def write_file(channel: grpc.Channel, path: bytes, content: bytes) -> None:
    """`start`, `data` in chunks of at most 1 MiB, and `finish`, without which nothing was written."""

    def requests() -> Iterator[files_pb2.WriteRequest]:
        yield files_pb2.WriteRequest(start=files_pb2.WriteStart(path=path))
        for at in range(0, len(content), CHUNK):
            yield files_pb2.WriteRequest(data=content[at : at + CHUNK])
        yield files_pb2.WriteRequest(finish=files_pb2.WriteFinish(size=len(content)))

    files_pb2_grpc.FilesStub(channel).Write(requests(), timeout=30)


def run(channel: grpc.Channel, line: bytes, replies: dict[bytes, bytes]) -> str:
    """Runs a line in the user's shell, shows its output as it comes, and answers what it writes."""
    requests: queue.Queue[processes_pb2.RunRequest | None] = queue.Queue()
    process = processes_pb2.ProcessSpec(shell_line=line, stdin=True)
    requests.put(processes_pb2.RunRequest(start=processes_pb2.RunStart(process=process)))
    # The iterator lives until the end of the call: ending it would half-close, which means `close_stdin`.
    answers = processes_pb2_grpc.ProcessesStub(channel).Run(iter(requests.get, None))
    errors = b""
    try:
        for answer in answers:
            message = answer.WhichOneof("message")
            if message == "output" and answer.output.WhichOneof("stream") == "stdout":
                chunk = answer.output.stdout
                print("  stdout:", chunk)
                if chunk in replies:
                    requests.put(processes_pb2.RunRequest(stdin=replies[chunk]))
            elif message == "output":
                errors += answer.output.stderr
            elif message == "exited":
                if errors:
                    print("  stderr:", errors)
                # A code or a signal: both are data, and the call ends OK.
                status = answer.exited.WhichOneof("status")
                return f"{status} {getattr(answer.exited, status)}"
        # The connection was lost, or the guest: never take it for 0.
        return "nobody knows how"
    finally:
        requests.put(None)


def explain(error: grpc.RpcError) -> str:
    """The one ErrorDetail in the trailer grpc-status-details-bin. gRPC's own errors have none."""
    code = error.code().name
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        unpacked = errors_pb2.ErrorDetail()
        if detail.Unpack(unpacked):
            reason = errors_pb2.ErrorReason.Name(unpacked.reason).removeprefix("ERROR_REASON_")
            where = f"{unpacked.operation} {unpacked.path.decode(errors='backslashreplace')}"
            return f"{code}, {reason}, errno {unpacked.errno}, {where}"
    return f"{code}, from gRPC itself: {error.details()}"


if __name__ == "__main__":
    main()
