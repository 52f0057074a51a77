"""Generates the messages and stubs of guestline.v1 into the folder that is named: `python generate.py generated`."""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    # google/protobuf/*.proto come with grpcio-tools.
    bundled = Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path) for path in sorted(PROTO.glob("guestline/v1/*.proto"))]
    return protoc.main(
        ["protoc", f"-I{PROTO}", f"-I{bundled}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    )


if __name__ == "__main__":
    sys.exit(main())
