"""No minute holds more than the limit, wherever it starts. Pure: no clock."""

KEPT_SECONDS = 60.05
"""What is beyond the minute is for the network's jitter."""


class Minute:
    """What went out in the last minute, so that no minute, wherever it starts, holds more than the limit."""

    _GRAIN = 0.05

    def __init__(self, most: float) -> None:
        self._most = most
        self._sums: dict[int, float] = {}
        """Grain of time -> what went out in it; in order of time, since time only grows."""
        self._total = 0.0

    def wait_seconds(self, now: float, amount: float) -> float:
        """Seconds until so much more fits: 0 if it does now, or if nothing is left whose end would help."""
        self._forget(now)
        over, wait = self._total + amount - self._most, 0.0
        for grain, went_out in self._sums.items():
            if over <= 0:
                break
            over -= went_out
            wait = self._end(grain) - now
        return max(wait, 0.0)

    def add(self, now: float, amount: float) -> None:
        """Note that so much goes out now."""
        grain = int(now / self._GRAIN)
        self._sums[grain] = self._sums.get(grain, 0.0) + amount
        self._total += amount

    def give_back(self, at: float, amount: float) -> None:
        """Note that of what went out at this time so much was not used."""
        grain = int(at / self._GRAIN)
        if grain in self._sums:
            self._sums[grain] -= amount
            self._total -= amount

    def _forget(self, now: float) -> None:
        while self._sums and self._end(oldest := next(iter(self._sums))) <= now:
            self._total -= self._sums.pop(oldest)

    def _end(self, grain: int) -> float:
        return (grain + 1) * self._GRAIN + KEPT_SECONDS
