"""Text on its way into a prompt, made unable to pose as the prompt's own structure.

An engine renders messages into one text and tokenises it whole, so `<|im_start|>system` within a
document or a tool's result becomes the very tokens that begin a system message. We cannot ask the
engine to keep text apart from tokens, and have no tokenizer here; so a zero-width space is put
behind the first character of whatever any common chat template uses. The text stays readable, and
no tokenizer takes it for its own any more. What the operator wrote is left as it is.
"""

import json
import re
from typing import Any

from agent_app.agent.conversation import Message

BREAK = "\u200b"
NAME_CHARACTERS = 64
UNREADABLE_CHARACTERS = 200

_NAMES = (
    "s|bos|eos|unk|pad|mask|sep|cls|think|tool_call|tool_calls|tool_response|tools"
    "|start_of_turn|end_of_turn|start_of_image|fim_prefix|fim_middle|fim_suffix|SPECIAL_\\d+"
    "|function_calls?|start_of_role|end_of_role|end_of_text"
)
_CONTROL = re.compile(
    "<(?=[|\uff5c])"  # <|im_start|>, <|eot_id|>: ChatML, Llama 3, Phi; wide bar: DeepSeek
    rf"|<(?=/?(?:{_NAMES})>)"  # Llama 2, Mistral, Gemma, Qwen's tool calls
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS"
    r"|CALL_ID|IMG|PREFIX|MIDDLE|SUFFIX|THINK|BEGIN_OF_[A-Z_]+|END_OF_[A-Z_]+)\])"
)
_TAGS = re.compile("[\U000e0000-\U000e007f]+")  # letters that no one sees and a model reads
_NAME = re.compile(r"[^A-Za-z0-9_.-]")


def neutral_text(text: str) -> str:
    """Return text in which nothing is a control token of a chat template."""
    if "<" in text or "[" in text:
        text = _CONTROL.sub(lambda found: found[0] + BREAK, text)
    return text if text.isascii() else _TAGS.sub("", text)


def neutral_message(message: Message) -> Message:
    """Return a message as it may enter a prompt, whoever wrote it."""
    neutral = {**message, "content": _content(message.get("content"))}
    if calls := message.get("tool_calls"):
        neutral["tool_calls"] = [_call(call) for call in calls]
    return neutral


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return neutral_text(content)
    if isinstance(content, list):
        return [
            {**part, "text": neutral_text(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return content


def _call(call: Any) -> Any:
    """Return a call as an engine can read it: one with broken arguments would be refused, and
    with it every later turn of the thread."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    name, arguments = str(function.get("name")), str(function.get("arguments") or "{}")
    try:
        readable = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        readable = False
    if not readable:
        arguments = json.dumps({"unreadable": arguments[:UNREADABLE_CHARACTERS]})
    name = _NAME.sub("_", name)[:NAME_CHARACTERS] or "_"
    return {**call, "function": {**function, "name": name, "arguments": neutral_text(arguments)}}
