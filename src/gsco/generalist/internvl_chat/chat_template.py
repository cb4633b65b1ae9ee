"""The chat template of InternVL-Chat V1.2, ``Hermes-2``: ChatML without line breaks between the turns.

The break after ``<|im_end|>`` that ChatML usually has is missing there, in training and in use, see
``Hermes-2`` in https://github.com/OpenGVLab/InternVL/blob/main/internvl_chat/internvl/conversation.py. Images
come before the text.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

TEMPLATE = "Hermes-2"
SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
"""The system message of ``Hermes-2`` in InternVL's public code (MIT)."""

END = "<|im_end|>"

_TURNS = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def chat_template(system: str) -> str:
    """The template as Jinja.

    Args:
        system: said where a conversation brings no system message of its own; empty for no such turn.
    """
    if not system:
        return _TURNS
    said = json.dumps(system, ensure_ascii=False)
    return (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\n' + " + said + " + '<|im_end|>' }}"
        "{% endif %}" + _TURNS
    )


def system_message(folder: Path) -> tuple[str, str]:
    """The system message of ``Hermes-2`` and where it comes from.

    A checkpoint may bring its own ``conversation.py``. That is read, not run.
    """
    path = folder / "conversation.py"
    if path.exists():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            tree = ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given = {
                    word.arg: word.value.value
                    for word in node.keywords
                    if isinstance(word.value, ast.Constant)
                }
                if given.get("name") == TEMPLATE and isinstance(given.get("system_message"), str):
                    return str(given["system_message"]), "the checkpoint's conversation.py"
    return SYSTEM, "Hermes-2 in InternVL's public code"
