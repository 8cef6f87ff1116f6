"""How sockets are set up before frames travel over them."""

from __future__ import annotations

import contextlib
import socket

#: Room in the kernel for a Unix socket, bytes; TCP finds its own.
SOCKET_BYTES = 4 << 20
#: Longest times that the kernel can be asked for: seconds between two of its own questions, and milliseconds.
_LONGEST_PAUSE, _LONGEST_SILENCE = 32767, 2**31 - 1
#: The longest time between two attempts to send the same, milliseconds: since Linux 6.15, not yet in `socket`.
_TCP_RTO_MAX_MS = 44
_SHORTEST_RTO_MAX, _LONGEST_RTO_MAX = 1000, 120_000


def tune(sock: socket.socket, heartbeat: float) -> None:
    """Sets a connected socket up: small frames leave at once, and a peer that is cut off is found in 2 heartbeats.

    The kernel keeps asking and answering by itself, so that a process may compute for as long as it likes.
    """
    if sock.family == socket.AF_UNIX:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        return
    pause = max(1, round(min(heartbeat / 2, _LONGEST_PAUSE)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # Else attempts grow so rare that a network that was away for less than two heartbeats comes back too late.
    longest = int(min(max(_SHORTEST_RTO_MAX, 250 * heartbeat), _LONGEST_RTO_MAX))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, longest)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(min(2e3 * heartbeat, _LONGEST_SILENCE))))
