"""What a client has of a completion, so that another engine can go on from there.

Text that an OpenAI client was given cannot be taken back. Where its engine dies the next one is
asked to go on with it: `continue_final_message`, as vLLM and SGLang know it, makes the last message
the beginning of the answer instead of one that was said.
"""

from dataclasses import replace
from typing import Any

from agent_app.agent.engine import Chunk, EngineFailure
from agent_app.agent.events import Usage


class Shown:
    """The text and the tokens of one completion, over all attempts at it.

    Args:
        calls: Calls of tools are shown as well.
    """

    __slots__ = ("_again", "_before", "_calls", "_goes_on", "_now", "_prompt", "_shows_calls",
                 "_text", "_thought", "fresh")  # fmt: skip

    def __init__(self, *, calls: bool) -> None:
        self._shows_calls = calls
        self._text: list[str] = []
        self._again = ""
        """Blanks that the client has and the next engine will say anew."""
        self._before = self._now = 0
        """Tokens of the text, of earlier attempts and of this one."""
        self._prompt = 0
        self._calls = self._thought = self._goes_on = False
        self.fresh = False
        """This attempt showed something."""

    def __bool__(self) -> bool:
        """Whether anything was shown."""
        return bool(self._text) or self._calls

    def see(self, chunk: Chunk) -> Chunk:
        """Count a chunk in; return it as the client is to get it.

        Raises:
            EngineFailure: It does not belong to the answer that was begun.
        """
        if chunk.thought and self._goes_on:
            raise EngineFailure("astray", "it began to think again", permanent=True)
        self._thought = self._thought or chunk.thought
        usage = chunk.usage
        if usage is not None and self._goes_on:
            prompt = self._prompt or usage.prompt_tokens - self._before
            whole = Usage(prompt, self._before + usage.completion_tokens)
            chunk = replace(chunk, usage=whole)
        elif usage is not None:
            self._prompt = usage.prompt_tokens
        if chunk.text and self._again:
            chunk = replace(chunk, text=self._without_blanks(chunk.text))
        if chunk.text:
            self._text.append(chunk.text)
            self._now = usage.completion_tokens if usage else self._now + 1
        if chunk.tool_calls and self._shows_calls:
            self._calls = True
        self.fresh = self.fresh or bool(chunk.text) or self._calls
        return chunk

    def _without_blanks(self, text: str) -> str:
        while text and self._again and text[0] == self._again[0]:
            text, self._again = text[1:], self._again[1:]
        if text:
            self._again = ""
        return text

    def can_go_on(self, body: dict[str, Any], *, engines_do: bool) -> bool:
        """Return whether another engine could go on from here, or begin where nothing is said yet.

        Not within a call that was shown, and not after thoughts, which no message brings back; nor
        where the answer follows a grammar, which would begin anew.

        Args:
            body: The request.
            engines_do: They know how to go on.
        """
        if self._calls:
            return False
        form = (body.get("response_format") or {}).get("type", "text")
        blank = all(text.isspace() for text in self._text)
        return blank or (engines_do and not self._thought and form == "text")

    def rest(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the request for what is left of the answer to `body`; None: nothing is.

        Blanks at the end are not sent, as some chat templates drop them: the next engine says
        them again, and they are left out.
        """
        self._before, self._now, self.fresh = self._before + self._now, 0, False
        text = "".join(self._text)
        begun = text.rstrip()
        self._again = text[len(begun) :]
        self._goes_on = bool(begun)
        if not begun:
            self._before = 0
            return body
        if self._before >= body["max_tokens"]:
            return None
        return {
            **body,
            "messages": [*body["messages"], {"role": "assistant", "content": begun}],
            "max_tokens": body["max_tokens"] - self._before,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
