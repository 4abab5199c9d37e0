"""Put on a kernel's PYTHONPATH, this takes the network away from it and from the Pythons it starts.

Python imports `sitecustomize` by itself when it starts. This machine's own addresses stay reachable.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any


def is_local(host: Any) -> bool:
    """Whether `host`, a name or an address, is this machine."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", "0.0.0.0"):
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False


def refusing(method: Callable[..., Any]) -> Callable[..., Any]:
    def refuse_other_machines(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
            raise OSError(errno.ENETUNREACH, f"the network is off while chapters are checked ({address[0]})")
        return method(self, address)

    return refuse_other_machines


def find_local(host: Any, *arguments: Any, **keywords: Any) -> Any:
    if not is_local(host):
        raise socket.gaierror(socket.EAI_AGAIN, f"the network is off while chapters are checked ({host})")
    return _find(host, *arguments, **keywords)


_find = socket.getaddrinfo
socket.getaddrinfo = find_local
socket.socket.connect = refusing(socket.socket.connect)  # type: ignore[method-assign]
socket.socket.connect_ex = refusing(socket.socket.connect_ex)  # type: ignore[method-assign]
