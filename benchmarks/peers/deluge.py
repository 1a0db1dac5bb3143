"""lm-deluge: its client takes all prompts; limits out of reach, so that only the requests at a time count."""

import asyncio

from _rows import MODEL, arguments, read, write
from lm_deluge import LLMClient
from lm_deluge.models import register_model

OUT_OF_REACH = 10**12


async def main():
    """Send everything."""
    rows, base_url, concurrency, max_tokens, output = arguments()
    ids, texts = read(rows)
    register_model(
        id="bench", name=MODEL, api_base=base_url, api_key_env_var="OPENAI_API_KEY", input_cost=0.15, output_cost=0.60
    )
    client = LLMClient(
        "bench",
        max_requests_per_minute=OUT_OF_REACH,
        max_tokens_per_minute=OUT_OF_REACH,
        max_concurrent_requests=concurrency,
        max_new_tokens=max_tokens,
    )
    answers = await client.process_prompts_async(texts, show_progress=False)
    write(output, ids, [answer.completion for answer in answers])


asyncio.run(main())
