"""Curator: `LLM` on a list of prompts, with its cache of answers; limits out of reach."""

from _rows import MODEL, arguments, read, write
from bespokelabs import curator

OUT_OF_REACH = 10**9


def main():
    """Send everything."""
    rows, base_url, concurrency, max_tokens, output = arguments()
    ids, texts = read(rows)
    model = curator.LLM(
        model_name=MODEL,
        backend="openai",
        backend_params={
            "base_url": base_url,
            "api_key": "none",
            "max_requests_per_minute": OUT_OF_REACH,
            "max_tokens_per_minute": OUT_OF_REACH,
            "max_concurrent_requests": concurrency,
        },
        generation_params={"max_tokens": max_tokens},
    )
    answered = model(texts)
    dataset = getattr(answered, "dataset", answered)
    write(output, ids, [row["response"] for row in dataset])


if __name__ == "__main__":
    main()
