"""What Jupyter starts in place of a kernel: it asks the warm process for a fork and
stands for it. See warm.py."""

import json
import os
import signal
import socket
import sys


def main(address: str, connection_file: str, *arguments: str) -> int:
    """Ask for a kernel; hand signals on to it; end as it ends."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(address)
    given = {
        "connection_file": connection_file,
        "arguments": arguments,
        "cwd": os.getcwd(),
        "env": dict(os.environ),
    }
    socket.send_fds(channel, [json.dumps(given).encode() + b"\n"], [0, 1, 2])
    said = channel.makefile()
    kernel = said.readline()
    if not kernel:
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(int(kernel), number))
    status = said.readline()
    return int(status) if status else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
