"""A chat completion as OpenAI documents it, and variations of it."""

STANDARD = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m-2026-01-01",
    "service_tier": "default",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": '{"number":"17"}', "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 150},
    },
}


def answered(message=None, **choice):
    """The standard answer with another message, or other fields of the choice."""
    first = STANDARD["choices"][0]
    return STANDARD | {"choices": [first | choice | ({} if message is None else {"message": message})]}
