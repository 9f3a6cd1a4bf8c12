"""Where the launchers of several machines meet: PyTorch's c10d rendezvous, hosted by the machine that the endpoint names."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

import click
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousHandler, RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from tin import interfaces
from tin.errors import TinError

WAIT_SECONDS = 1800
"""How long a machine waits for the one that hosts the meeting, and then for the others: schedulers start them minutes apart."""
SILENCE_SECONDS = 30
"""After which an endpoint that no longer answers is given up."""
PATIENCE_SECONDS = 10.0
"""After which it says what it waits for."""


@dataclass(frozen=True)
class Meeting:
    """A rendezvous and what this machine is called there."""

    handler: RendezvousHandler
    endpoint: str
    run_id: str
    address: str
    """Of this machine; the others connect to it."""


def local_meeting(run_id: str) -> Meeting:
    """Of this machine with itself; it needs no network and no name."""
    return _meeting("127.0.0.1:0", run_id, 1, 1, "127.0.0.1", is_host=True)


def meet(endpoint: str, run_id: str, least: int, most: int) -> Meeting:
    """Host the meeting if the endpoint's address is one of this machine's, else wait until it can be reached.

    Torch compares names to find out which machine hosts; here the address decides, which also holds where several machines have
    one name or a name stands for the loopback.

    Raises:
        TinError: the endpoint cannot be reached within `WAIT_SECONDS`.
    """
    host, port = endpoint.rsplit(":", 1)
    host = host.strip("[]")
    is_host = _wait_for(host, int(port))
    address = interfaces.address_towards(host, outside=most > 1)
    machines = f"{least}" if least == most else f"{least} to {most}"
    role = "the host" if is_host else f"guest {address}"
    click.echo(f"tin-cli: {machines} machines meet at {endpoint} for run '{run_id}'; this is {role}", err=True)
    if is_host:
        try:
            return _meeting(endpoint, run_id, least, most, address, is_host=True)
        except RendezvousConnectionError:
            pass  # another launcher of this machine hosts it
    try:
        return _meeting(endpoint, run_id, least, most, address, is_host=False)
    except RendezvousConnectionError as error:
        raise TinError(
            f"{endpoint} does not answer as a meeting point of runs: is the port taken? ({error.__cause__})"
        ) from error


def _wait_for(host: str, port: int) -> bool:
    """Until the endpoint accepts connections; True at once if this machine is the one to open it."""
    started = time.monotonic()
    said = False
    while True:
        try:
            if any(interfaces.is_own(address) for address in interfaces.resolve(host)):
                return True
            with socket.create_connection((host, port), timeout=5):
                return False
        except OSError as error:
            waited = time.monotonic() - started
            if waited > WAIT_SECONDS:
                raise TinError(
                    f"{host}:{port} could not be reached for {WAIT_SECONDS // 60} minutes ({error}): start the same command on {host}, "
                    f"and let the machines reach each other's ports"
                ) from None
            if waited > PATIENCE_SECONDS and not said:
                said = True
                click.echo(f"tin-cli: waiting for {host}:{port} ({error})", err=True)
        time.sleep(1)


def _meeting(endpoint: str, run_id: str, least: int, most: int, address: str, *, is_host: bool) -> Meeting:
    parameters = RendezvousParameters(
        backend="c10d", endpoint=endpoint, run_id=run_id, min_nodes=least, max_nodes=most, local_addr=address,
        is_host=is_host, join_timeout=WAIT_SECONDS, read_timeout=SILENCE_SECONDS,
    )  # fmt: skip
    handler = get_rendezvous_handler(parameters)
    _notice_silence(int(endpoint.rsplit(":", 1)[1]))
    return Meeting(handler, endpoint, run_id, address)


def _notice_silence(port: int) -> None:
    """Let the connection to the endpoint fail when the other side is silent. Torch waits for some answers without a limit, and where
    a cable is cut the system by itself would take a quarter of an hour to give up."""
    for name in os.listdir("/proc/self/fd") if port else ():
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as sock:
            if sock.getpeername()[1] == port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (
                    (socket.TCP_KEEPIDLE, SILENCE_SECONDS // 3),
                    (socket.TCP_KEEPINTVL, SILENCE_SECONDS // 6),
                    (socket.TCP_KEEPCNT, 4),
                    (socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000),
                ):
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
