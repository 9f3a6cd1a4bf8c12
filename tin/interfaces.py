"""Which address and network interface of this machine lead to another one."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B  # linux/sockios.h
_NOWHERE = "198.51.100.1"  # TEST-NET-2: only default routes lead there, and nothing is ever sent


def resolve(host: str) -> list[str]:
    """Addresses of a host, in the order to try them.

    Raises:
        OSError: the name is unknown here.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's, or of its network namespace."""
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def address_towards(host: str, *, outside: bool) -> str:
    """The address of this machine that others behind the same network reach it by.

    Args:
        host: one of the others, or this machine.
        outside: others are on other machines, so a loopback address does not do: where the machine's own name stands for one, as
            Debian's /etc/hosts has it, the address of the default route is taken, else that of the first other interface.

    Raises:
        OSError: the name is unknown here, or nothing leads there.
    """
    address = _source(resolve(host)[0])
    if not (outside and ipaddress.ip_address(address).is_loopback):
        return address
    try:
        return _source(_NOWHERE)
    except OSError:
        others = (_address_of(name) for _, name in socket.if_nameindex())
        return next((other for other in others if other and not other.startswith("127.")), address)


def interface_of(address: str) -> str | None:
    """The name of the interface that has an IPv4 address, or is in its network; None when there is none."""
    if _family(address) != socket.AF_INET:
        return None
    names = [name for _, name in socket.if_nameindex()]
    for name in names:
        if _address_of(name) == address:
            return name
    for name in names:  # a further address of an interface
        own, mask = _address_of(name), _ask(name, _SIOCGIFNETMASK)
        if own and mask and ipaddress.ip_address(address) in ipaddress.ip_network(f"{own}/{mask}", strict=False):
            return name
    return None


def _source(address: str) -> str:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, 9))  # of a datagram socket: chooses the route, sends nothing
        return str(sock.getsockname()[0])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _address_of(interface: str) -> str | None:
    return _ask(interface, _SIOCGIFADDR)


def _ask(interface: str, request: int) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), request, struct.pack("256s", interface.encode()[:15]))
        except OSError:  # no IPv4 address
            return None
    return socket.inet_ntoa(answer[20:24])
