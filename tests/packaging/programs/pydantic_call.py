"""A typed tool call with pydantic's models on both sides; says the answer. For the extra `pydantic` alone."""

import asyncio

import pydantic

import relay_mp
from relay_mp import ToolExecutionResult, typed


class Question(pydantic.BaseModel):
    words: list[str]


class Answer(pydantic.BaseModel):
    count: int


def count(question: Question) -> ToolExecutionResult[Answer]:
    return ToolExecutionResult(Answer(count=len(question.words)))


async def main() -> None:
    codecs = typed.PydanticCodec(Question), typed.PydanticCodec(Answer)
    done = await typed.tool_execute("count", Question(words=["a", "b"]), count, *codecs)
    print(repr(done.result))


with relay_mp.session():
    relay_mp.subscribers.register("ignore", lambda event: None)
    asyncio.run(main())
