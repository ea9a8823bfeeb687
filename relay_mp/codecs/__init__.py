"""Codecs: between what a model's provider sends and receives, and one view for all of them.

    protocols   LlmCodec, LlmResponseCodec: what `relay_mp.llm` asks of a codec, yours too
    merge       carries a change of a view over to the original, whatever the view does not know
    request     what the codecs of requests have in common; parts: content parts by a table
    response    what the codecs of responses have in common; lenient: values whose types are not certain
    usage       one model of usage: what each API's counts mean
    streams     from the chunks of a streamed response to the response
    openai_chat, openai_responses, anthropic_messages, gemini (spelling), oci_genai    one API each
    detect      which of them a payload looks like; providers: who served a call

The views are in `relay_mp.annotated`. A codec's `decode` gives the view of a request; intercepts change
it; `encode` puts the change into the original, and leaves all else as it was:

    codec = OpenAIChatCodec()
    view = codec.decode(request)
    view.messages = [*view.messages, {"role": "user", "content": "In one sentence."}]
    request = codec.encode(view, request)

`codec.encode(codec.decode(request), request)` has the request's content. Codecs are stateless: any
thread, any process. What a failing codec does to a call is said in `protocols`.
"""

from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
from relay_mp.codecs.anthropic_messages import AnthropicMessagesCodec
from relay_mp.codecs.detect import (
    LlmCall,
    answer_of,
    call_of,
    detect_request,
    detect_response,
    last_message,
    request_of,
    response_of,
)
from relay_mp.codecs.gemini import GeminiGenerateContentCodec
from relay_mp.codecs.oci_genai import OCIGenAIChatCodec
from relay_mp.codecs.openai_chat import OpenAIChatCodec
from relay_mp.codecs.openai_responses import OpenAIResponsesCodec
from relay_mp.codecs.protocols import LlmCodec, LlmResponseCodec
from relay_mp.codecs.streams import StreamCollector, assemble

__all__ = [
    "AnnotatedLLMRequest",
    "AnnotatedLLMResponse",
    "AnthropicMessagesCodec",
    "GeminiGenerateContentCodec",
    "LlmCall",
    "LlmCodec",
    "LlmResponseCodec",
    "OCIGenAIChatCodec",
    "OpenAIChatCodec",
    "OpenAIResponsesCodec",
    "StreamCollector",
    "answer_of",
    "assemble",
    "call_of",
    "detect_request",
    "detect_response",
    "last_message",
    "request_of",
    "response_of",
]
