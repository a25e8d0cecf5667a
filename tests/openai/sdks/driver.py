# mypy: ignore-errors
"""Drives OpenAI's SDK as the tests say: one JSON command a line on stdin, one JSON answer a line on stdout.

It runs in the SDK's own virtual environment, with none of Ropeway in it.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import openai


def plain(value):
    return value.model_dump(mode="json", exclude_unset=True, warnings=False) if hasattr(value, "model_dump") else value


def refusal(error):
    told = {"class": type(error).__name__, "said": str(error)}
    for name in ("status_code", "code", "param", "type", "body", "request_id"):
        told[name] = getattr(error, name, None)
    return {"error": told}


def told(raw):
    """An answer with the headers it came with, and how many redirects were followed on the way."""
    response = raw.http_response if hasattr(raw, "http_response") else raw._response
    return {"value": plain(raw.parse()), "headers": dict(raw.headers), "hops": len(response.history)}


class Play:
    """The commands. `only` ends a stream after so many events, by closing its connection."""

    def __init__(self, url, key, retries, timeout):
        settings = {"base_url": f"{url}/v1", "api_key": key, "max_retries": retries, "timeout": timeout}
        self.client = openai.OpenAI(**settings)
        self.other = openai.AsyncOpenAI(**settings)

    def models(self):
        return [plain(model) for model in self.client.models.list()]

    def model(self, id_):
        return plain(self.client.models.retrieve(id_))

    def chat(self, **args):
        return told(self.client.chat.completions.with_raw_response.create(**args))

    def chat_async(self, **args):
        async def go():
            return plain(await self.other.chat.completions.create(**args))

        return asyncio.run(go())

    def chat_stream(self, only=None, **args):
        return self.events(self.client.chat.completions.create(stream=True, **args), only)

    def chat_stream_async(self, **args):
        async def go():
            async with await self.other.chat.completions.create(stream=True, **args) as stream:
                return {"events": [plain(chunk) async for chunk in stream]}

        return asyncio.run(go())

    def embed(self, **args):
        return told(self.client.embeddings.with_raw_response.create(**args))

    def respond(self, **args):
        return told(self.client.responses.with_raw_response.create(**args))

    def respond_stream(self, only=None, **args):
        return self.events(self.client.responses.create(stream=True, **args), only)

    def respond_helper(self, **args):
        """The SDK's own way to put a stream together."""
        with self.client.responses.stream(**args) as stream:
            types = [event.type for event in stream]
            return {"types": types, "final": plain(stream.get_final_response())}

    def resume(self, id_, after, only=None):
        return self.events(self.client.responses.retrieve(id_, stream=True, starting_after=after), only)

    def retrieve(self, id_):
        return plain(self.client.responses.retrieve(id_))

    def cancel(self, id_):
        return plain(self.client.responses.cancel(id_))

    def delete(self, id_):
        self.client.responses.delete(id_)

    def input_items(self, id_, **args):
        return [plain(item) for item in self.client.responses.input_items.list(id_, **args)]

    def batch(self, lines, endpoint, **args):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "batch.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            file = self.client.files.create(file=path, purpose="batch")
        made = self.client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **args)
        return plain(made)

    def batch_of(self, id_):
        return plain(self.client.batches.retrieve(id_))

    def batch_cancel(self, id_):
        return plain(self.client.batches.cancel(id_))

    def batches(self):
        return [plain(batch) for batch in self.client.batches.list(limit=2)]

    def content(self, id_):
        return [json.loads(line) for line in self.client.files.content(id_).text.splitlines()]

    def events(self, stream, only):
        seen = []
        try:
            for event in stream:
                seen.append(plain(event))
                if len(seen) == only:
                    break
        except openai.APIError as error:
            return {"events": seen, **refusal(error)}
        finally:
            stream.close()
        return {"events": seen}


def main():
    for line in sys.stdin:
        command = json.loads(line)
        try:
            play = Play(command["url"], command["key"], command["retries"], command["timeout"])
            answer = {"ok": getattr(play, command["do"])(**command["args"])}
        except openai.OpenAIError as error:
            answer = refusal(error)
        except Exception as error:  # told to the test
            answer = {"crash": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
