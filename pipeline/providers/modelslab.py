"""ModelsLab: OpenAI's dialect at its own address, 4 requests at a time, and a second way to send key and model.

It limits queued requests per account (5 on the smallest plan), so the number of slots is the limit that matters.
"""

from pipeline.providers.openai import DIALECT_OPTIONS, OpenAI

PROVIDER = OpenAI(
    name="modelslab",
    base_url="https://modelslab.com/api/v7/llm",
    key_env="MODELSLAB_API_KEY",
    concurrency=4,
    structured="json_object",
    # Its pages disagree: header and `model` (documentation), or `key` and `model_id` in the body (model page).
    options=DIALECT_OPTIONS | {"key_in_body", "model_field"},
)
