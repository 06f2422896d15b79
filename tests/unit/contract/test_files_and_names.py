"""Config files, native paths and ports, termination messages."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pippin_contract import gatewayconfig, native, serverconfig, wire

CONFIG = serverconfig.ServerConfig(
    name="qwen", namespace="team-a", served_name="qwen-7b", engine="mlx"
)


def test_a_server_config_survives_the_way_over_a_file():
    assert serverconfig.load(serverconfig.dump(CONFIG)) == CONFIG


def test_the_same_config_gives_the_same_bytes():
    assert serverconfig.dump(CONFIG) == serverconfig.dump(CONFIG.model_copy())


def test_a_newer_field_is_ignored_and_a_newer_version_refused():
    newer = serverconfig.dump(CONFIG).replace('"version": 1', '"version": 1, "later": true')
    assert serverconfig.load(newer) == CONFIG
    with pytest.raises(ValidationError, match="version"):
        serverconfig.load(serverconfig.dump(CONFIG).replace('"version": 1', '"version": 9'))


def test_a_server_config_of_an_operator_before_the_prompt_cache_turns_it_on():
    before = serverconfig.load('{"name": "q", "servedName": "q", "engine": "mlx"}')
    assert before.prompt_cache == serverconfig.PromptCacheConfig(enabled=True, max_bytes=None)


def test_a_gateway_config_names_every_wrong_field_at_once():
    with pytest.raises(ValidationError) as caught:
        gatewayconfig.load('{"port": 0, "maxBodyBytes": 1}')
    assert {error["loc"][0] for error in caught.value.errors()} == {"port", "maxBodyBytes"}


def test_in_a_container_paths_and_ports_are_as_configured():
    assert native.resolve("/etc/pippin/x", {}) == Path("/etc/pippin/x")
    assert native.bind("http", "0.0.0.0", 8000, {}) == ("0.0.0.0", 8000)


def test_a_native_pod_finds_its_files_under_its_root_and_its_ports_in_the_environment():
    environ = {
        "PIPPIN_ROOT": "/pods/u/root",
        "PIPPIN_BIND_HOST": "127.0.0.1",
        "PIPPIN_PORT_WEB_UI": "41000",
    }
    assert native.resolve("/etc/pippin/x", environ) == Path("/pods/u/root/etc/pippin/x")
    assert native.bind("web-ui", "0.0.0.0", 8000, environ) == ("127.0.0.1", 41000)


def test_a_termination_message_gives_its_reason_back():
    text = wire.termination_message("ModelCorrupted", "model.safetensors: ends early")
    assert wire.parse_termination_message(text) == (
        "ModelCorrupted",
        "model.safetensors: ends early",
    )


@pytest.mark.parametrize("text", ["Traceback (most recent call last)", "error: no", "plain words"])
def test_foreign_last_words_have_no_reason(text):
    assert wire.parse_termination_message(text)[0] is None
