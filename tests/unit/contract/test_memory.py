"""What machines say of their memory."""

from __future__ import annotations

from pippin_contract import memory


def test_free_memory_of_a_mac_is_counted_in_pages() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               100.\n"
        "Pages active:                            9999.\n"
        "Pages inactive:                            50.\n"
        "Pages speculative:                         10.\n"
    )
    assert memory.darwin_available(text) == 160 * 16384
    assert memory.darwin_available("nonsense") is None
