"""The bundled model, served by llama.cpp in a child process that makes up its own address and key."""

from pipeline.providers.openai import OpenAI

PROVIDER = OpenAI(name="local", base_url=None, needs_key=False, concurrency=2)
