"""Chat templates of models that call functions, and models that have them."""

from __future__ import annotations

import json
from pathlib import Path

#: As Hermes' and Qwen's: JSON in tags. Without tools it is SmolLM2's own.
HERMES = """\
{%- if messages[0].role != 'system' %}<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
{% endif %}
{%- if tools %}<|im_start|>system
You may call one or more of these functions:
{% for tool in tools %}{{ tool.function | tojson }}
{% endfor %}Answer with <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call> for each call.<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for tool_call in message.tool_calls or [] %}
{%- set tool_call = tool_call.function %}<tool_call>
{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
#: The same of a model that thinks first.
THINKING = HERMES.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def taught(model: Path, into: Path, template: str) -> Path:
    """The model under another template, without copies of its big files; returns its directory."""
    into.mkdir(parents=True)
    for file in model.iterdir():
        if file.name != "tokenizer_config.json":
            (into / file.name).symlink_to(file)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (into / "tokenizer_config.json").write_text(json.dumps(settings))
    return into
