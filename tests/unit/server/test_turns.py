"""Chats reach the templates in the shape that they were written for."""

from __future__ import annotations

from pippin_server.engines.base import Call, Function, Message, Shown, Tools
from pippin_server.engines.mlx.turns import Form, offered, turns

LOOK = Call("look", '{"at": "sky"}', "call_1")
CHAT = (
    Message("user", "hello"),
    Message("assistant", "", reasoning="hm", calls=(LOOK,)),
    Message("tool", "blue", answers="call_1"),
    Message("tool", "grey", answers="call_2"),
)


def test_arguments_are_objects_and_answers_name_their_function() -> None:
    function = {"name": "look", "arguments": {"at": "sky"}}
    assert turns(CHAT) == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "blue", "tool_call_id": "call_1", "name": "look"},
        {"role": "tool", "content": "grey", "tool_call_id": "call_2", "name": ""},
    ]


def test_arguments_can_be_text_for_templates_that_join_it() -> None:
    (_, called, *_) = turns(CHAT, as_text=True)
    assert called["tool_calls"][0]["function"]["arguments"] == '{"at": "sky"}'


def test_ids_are_short_where_the_template_insists_and_still_belong_together() -> None:
    (_, called, first, second) = turns(CHAT, Form(short=True))
    ids = [called["tool_calls"][0]["id"], first["tool_call_id"], second["tool_call_id"]]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    native = Message("tool", "x", answers="a1b2c3d4e")
    assert turns([native], Form(short=True))[0]["tool_call_id"] == "a1b2c3d4e"


def test_tools_are_told_without_what_is_not_for_the_model() -> None:
    look = Function("look", {"type": "object"}, "Looks.", strict=True)
    told = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    assert offered(Tools((look,))) == [{"type": "function", "function": told}]
    assert offered(None) is None


def test_words_and_pictures_come_in_their_order_in_the_form_that_the_template_reads() -> None:
    shown = Shown(b"", "png", 1, 2, 2, coarse=False, where="")
    said = [Message("user", "what\nis it", parts=("what", shown, "is it")), Message("user", "")]
    first, nothing = turns(said, Form(parts=True))
    assert first["content"] == [
        {"type": "text", "text": "what"},
        {"type": "image"},
        {"type": "text", "text": "is it"},
    ]
    # Some templates look at the first part, whatever there is.
    assert nothing["content"] == [{"type": "text", "text": ""}]
    assert [turn["content"] for turn in turns(said, Form(mark="<image>"))] == [
        "what\n<image>\nis it",
        "",
    ]
