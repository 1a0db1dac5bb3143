"""litellm: `acompletion` under a semaphore, as its documentation has it for many requests."""

import asyncio

import litellm
from _rows import MODEL, arguments, read, write


async def main():
    """Send everything."""
    rows, base_url, concurrency, max_tokens, output = arguments()
    ids, texts = read(rows)
    gate = asyncio.Semaphore(concurrency)

    async def ask(text):
        async with gate:
            said = await litellm.acompletion(
                model=f"openai/{MODEL}",
                api_base=base_url,
                api_key="none",
                messages=[{"role": "user", "content": text}],
                max_tokens=max_tokens,
                num_retries=5,
            )
            return said.choices[0].message.content

    write(output, ids, await asyncio.gather(*(ask(text) for text in texts)))


asyncio.run(main())
