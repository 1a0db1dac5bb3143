"""Where a run's requests go: an address that is simply there, or the bundled model that must be started first."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from pipeline.runners._local_model import LocalModel


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and the key for it, which never leaves this value but for the wire."""

    base_url: str
    api_key: str | None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url})"


class Connection(Protocol):
    """Gives the endpoint when the first request is about to go out."""

    async def endpoint(self) -> Endpoint:
        """Return where to send; may start what answers there. Raises UserError if it can't."""

    async def close(self) -> None:
        """End what `endpoint` started."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A provider's address."""

    target: Endpoint

    async def endpoint(self) -> Endpoint:
        """Return the address."""
        return self.target

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
                started = await self._model.start()
                self._endpoint = Endpoint(started.base_url, started.api_key)
        return self._endpoint

    async def close(self) -> None:
        """Stop the model."""
        await self._model.stop()
