"""Where a run's requests go: an address that is simply there, or the bundled model that must be started first."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.runners._local_model import Endpoint, LocalModel


class Connection(Protocol):
    """Gives the endpoint when the first request is about to go out."""

    async def endpoint(self) -> Endpoint:
        """Return where to send; may start what answers there. Raises UserError if it can't."""

    async def close(self) -> None:
        """End what `endpoint` started."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A provider's address, and the key for it if it has one."""

    base_url: str
    api_key: str | None = field(repr=False)
    _endpoint: Endpoint = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the endpoint once for all requests."""
        object.__setattr__(self, "_endpoint", Endpoint(self.base_url, self.api_key))

    async def endpoint(self) -> Endpoint:
        """Return the address."""
        return self._endpoint

    async def close(self) -> None:
        """Nothing was started."""


class Bundled:
    """The model that runs on this machine, started with the first request and stopped with the run."""

    def __init__(self, model: str) -> None:
        self._model = LocalModel(model)
        self._endpoint: Endpoint | None = None
        self._starting = asyncio.Lock()

    async def endpoint(self) -> Endpoint:
        """Start the model the first time."""
        async with self._starting:
            if self._endpoint is None:
                self._endpoint = await self._model.start()
        return self._endpoint

    async def close(self) -> None:
        """Stop the model."""
        await self._model.stop()
