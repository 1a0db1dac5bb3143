"""OpenAI's SDK as its cookbook uses it for many requests: one client, a semaphore, and `gather`."""

import asyncio
import sys

import openai
from _rows import MODEL, arguments, read, write


async def main():
    """Send everything."""
    transport = sys.argv.pop()
    rows, base_url, concurrency, max_tokens, output = arguments()
    ids, texts = read(rows)
    gate = asyncio.Semaphore(concurrency)
    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else None
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=5, http_client=http) as client:

        async def ask(text):
            async with gate:
                said = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=max_tokens
                )
                return said.choices[0].message.content

        write(output, ids, await asyncio.gather(*(ask(text) for text in texts)))


asyncio.run(main())
