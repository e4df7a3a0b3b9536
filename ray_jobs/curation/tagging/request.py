"""What a vision-language model is asked, in which form, and what counts as its answer. Pure; every backend and profile shares it."""

import base64
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from ray_jobs.episode import EpisodeMeta
from ray_jobs.seam.configs import CaptionSettings
from ray_jobs.seam.errors import DataError
from ray_jobs.seam.model import Strict

# A pattern and not maxLength, with which xgrammar lets control characters through; in parts, because xgrammar 0.2.8 compiles no
# repetition above 128, and then the engine answers nothing at all.
LETTERS = r"[A-Za-z0-9 ,.'-]"
SHORT, LONG = rf"^[A-Za-z0-9]{LETTERS}{{0,60}}$", rf"^[A-Za-z0-9]{LETTERS}{{0,100}}{LETTERS}{{0,100}}$"


class Answer(Strict):
    """What the model must say. Its JSON schema guides the decoding, and the same model checks the result."""

    caption: str = Field(pattern=LONG)
    objects: str = Field(pattern=SHORT)
    scene: str = Field(pattern=SHORT)
    outcome: Literal["success", "failure", "unclear"]


SCHEMA = Answer.model_json_schema()
QUESTION = (
    "These are {frames} frames, in order, of a robot's recording of {seconds:.0f} seconds. Its task, as recorded: {task!r}. "
    "Describe what the robot does in one sentence (caption), name the objects that it handles (objects), the place (scene), "
    "and whether the task is done at the end (outcome: success, failure or unclear). Answer as JSON."
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_CHAT = "<|im_start|>user\n{images}{text}<|im_end|>\n<|im_start|>assistant\n"
NOTHING = np.zeros((28, 28, 3), np.uint8)


def question(meta: EpisodeMeta, frames: int) -> str:
    """The words. A recording's own task text cannot end the turn or place a picture: its control tokens are taken apart."""
    clip = meta.cameras[min(meta.cameras)]
    task = " ".join(meta.task.split()).replace("<|", "< |")
    return QUESTION.format(frames=frames, seconds=clip.frames / meta.fps if meta.fps else 0.0, task=task or "not recorded")


def picks(count: int, wanted: int) -> list[int]:
    """Which of `count` frames are shown: at most `wanted`, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist() if count else []


def vllm_row(text: str, frames: Sequence[np.ndarray], settings: CaptionSettings) -> dict[str, Any]:
    """A row of Ray Data LLM's engine stage, in its direct form, with the chat markup of the Qwen-VL family. frames: u8 [h, w, 3]."""
    return {
        "prompt": QWEN_CHAT.format(images=QWEN_IMAGE * len(frames), text=text),
        "multimodal_data": {"image": [Image.fromarray(frame) for frame in frames]},
        "sampling_params": {"temperature": 0, "max_tokens": settings.max_tokens, "structured_outputs": {"json": json.dumps(SCHEMA)}},
        "__inference_error__": "",
    }


def vllm_refused(error: str) -> dict[str, Any]:
    """A row that the engine stage passes by, of the same columns as the others."""
    return {
        "prompt": "",
        "multimodal_data": {"image": [Image.fromarray(NOTHING)]},
        "sampling_params": {"temperature": 0, "max_tokens": 1, "structured_outputs": {"json": ""}},
        "__inference_error__": error,
    }


def http_body(text: str, frames: Sequence[np.ndarray], settings: CaptionSettings) -> dict[str, Any]:
    """The body of POST /chat/completions, as OpenAI's API and vLLM's server define it."""
    pictures = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(_jpeg(frame)).decode()}"}} for frame in frames]
    return {
        "model": settings.model,
        "temperature": 0,
        "max_tokens": settings.max_tokens,
        "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    }


def http_answer(document: Any) -> str:
    """The model's words out of a response. Raises DataError where it holds none."""
    try:
        words = document["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        words = None
    if not isinstance(words, str):
        raise DataError("the server's response holds no choices[0].message.content")
    return words


def parse(words: str, by: str) -> dict[str, str]:
    """Tags out of the model's words, with who said it. Raises DataError: an answer that is not the one asked for is not guessed at."""
    try:
        answer = Answer.model_validate_json(words)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
        raise DataError(f"the model's answer is not what was asked for ({told[:200]}); it may have been cut at max_tokens") from None
    said = {name: value.strip() for name, value in answer.model_dump().items()}
    return {"caption": said["caption"], "caption.by": by, **{f"seen.{name}": said[name] for name in ("objects", "scene", "outcome")}}


def _jpeg(frame: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(frame).save(sink, "JPEG", quality=85)
    return sink.getvalue()
