"""Whether a server's connections may be used again. Pure: no clock.

Some servers and gateways end a connection after an answer, or after seconds, without having announced it. A request
that crosses with the end may have been received: its worst case is booked, and a try is used up. A new connection is
cheaper.
"""

from collections.abc import Mapping
from math import inf

DEATHS = 3
"""So many connections must have died under a request, hardly anything having gone well in between."""
FEW = 100
"""Good exchanges between two deaths that are few: otherwise it was a server that began anew, or the network."""
AT_ONCE_SECONDS = 1.0
"""Connections that die so soon after one that many good exchanges went before are one death: a server that begins anew
ends all of them. Where nothing went well before, each counts: a gateway that ends every connection is found at once."""
WARY_SECONDS = 60.0
"""How long each request has a connection of its own then; twice as long each time that it was not for once."""


class Reuse:
    """What is known about one server."""

    __slots__ = ("_anew", "_deaths", "_until", "_wary_seconds", "allowed", "good")

    def __init__(self) -> None:
        self.allowed = True
        self.good = 0
        """Exchanges that went well since the last death; whoever makes them counts."""
        self._deaths = 0
        self._anew = -inf
        """When the first connection died after many good exchanges."""
        self._until = 0.0
        self._wary_seconds = WARY_SECONDS

    def died(self, now: float) -> None:
        """Hear of a connection that ended under a request before a byte of an answer had come."""
        if self.good >= FEW:
            self._deaths, self._anew = 1, now
        elif now - self._anew >= AT_ONCE_SECONDS:
            self._deaths += 1
        self.good = 0
        if self.allowed and self._deaths >= DEATHS:
            self.allowed, self._until = False, now + self._wary_seconds
            self._wary_seconds *= 2

    def unasked(self) -> bool:
        """Hear that more came back than was asked for: answers may be taken for each other's. Tell if that is new.

        From now on each request has a connection of its own, to the end.
        """
        new = self._until != inf
        self.allowed, self._until = False, inf
        return new

    def headers(self, headers: Mapping[str, str], now: float) -> Mapping[str, str]:
        """Return the headers to send, for a library that keeps connections as it likes."""
        if self.allowed:
            return headers
        self.look(now)
        return headers if self.allowed else {**headers, "connection": "close"}

    def look(self, now: float) -> None:
        """Allow it for once after a while: the next death forbids it again."""
        if not self.allowed and now >= self._until:
            self.allowed, self.good, self._deaths = True, 0, DEATHS - 1
