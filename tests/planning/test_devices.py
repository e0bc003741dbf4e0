"""Devices by name and by size: what the driver reports, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import UsageError
from peftkit.planning import devices


def test_every_device_is_found_by_the_drivers_name_and_no_two_share_one() -> None:
    names = [device.name for device in devices.known()]
    assert len(names) == len(set(names)) >= 30
    for device in devices.known():
        assert devices.find(device.name) == device
        assert devices.find(device.name.removeprefix("NVIDIA ")) == device, "older drivers"
        assert device.source and device.has_rates


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("a100-40", "NVIDIA A100-SXM4-40GB"),
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("t4", "Tesla T4"),
    ],
)
def test_short_names(asked: str, name: str) -> None:
    assert devices.find(asked).name == name


@pytest.mark.parametrize(
    ("name", "marketed_gb"),
    [("t4", 16), ("3090", 24), ("a100-40", 40), ("l40s", 48), ("h100", 80), ("h200", 141)],
)
def test_memory_is_the_drivers_figure_not_the_marketed_one(name: str, marketed_gb: int) -> None:
    """The driver keeps some, ECC takes a sixteenth, and GB are not GiB; never more than sold."""
    reported = devices.find(name).total_bytes
    assert 0.85 * marketed_gb * 2**30 < reported < marketed_gb * 2**30


def test_peaks_are_dense_and_ordered() -> None:
    for device in devices.known():
        half = device.peak_flops("float16")
        assert half is not None and device.float32_flops is not None
        assert half >= device.float32_flops
        if device.tf32_flops is not None:
            # Tensor cores make tf32 at half the rate of 16 bits on every card that has it.
            assert 0.45 < device.tf32_flops / half < 0.55, device.name


def test_missing_arithmetic_falls_back_to_float32() -> None:
    t4 = devices.find("t4")
    assert t4.bfloat16_flops is None
    assert t4.peak_flops("bfloat16") == t4.float32_flops
    with pytest.raises(ValueError, match="int8"):
        t4.peak_flops("int8")


@given(st.floats(min_value=0.001, max_value=4096))
def test_a_size_alone_has_no_rates(gib: float) -> None:
    device = devices.of_size(gib)
    assert device.total_bytes == round(gib * 2**30)
    assert not device.has_rates
    assert device.peak_flops("bfloat16") is None


def test_parse_takes_sizes_and_names() -> None:
    found = devices.parse("8, 23.6,a100-80")
    assert [d.total_bytes for d in found[:2]] == [8 << 30, round(23.6 * 2**30)]
    assert found[2].name == "NVIDIA A100-SXM4-80GB"
    assert devices.parse("4090")[0].name == "NVIDIA GeForce RTX 4090", "not a size"


@pytest.mark.parametrize("text", ["0", "-8", "nan", "inf", "8,,16", "", "gtx 9999"])
def test_what_is_no_device_is_refused_and_its_memory_asked_for(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        devices.parse(text)
    hint = caught.value.hint or ""
    assert "its memory in GiB" in hint or "--gpus 8,16,24" in hint
    assert caught.value.exit_code == 2


def test_every_wrong_item_is_named() -> None:
    with pytest.raises(UsageError, match=r"'foo' is known; .*'bar'"):
        devices.parse("foo,8,bar")


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean 'NVIDIA GeForce RTX 4090'"):
        devices.find("rtx 4099")


def test_the_device_at_hand_keeps_its_own_memory() -> None:
    device = devices.present("NVIDIA RTX A6000", 44 << 30)  # ECC switched on
    assert device.total_bytes == 44 << 30
    assert device.bandwidth == 768e9
    sliced = devices.present("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40 << 30)
    assert sliced.total_bytes == 40 << 30
    assert not sliced.has_rates, "a slice has a slice of the rates"
    laptop = devices.present("NVIDIA GeForce RTX 4090 Laptop GPU", 16 << 30)
    assert not laptop.has_rates, "another chip"


def test_as_a_machine_it_decides_as_the_card_would() -> None:
    t4, any16 = devices.find("t4").as_machine(), devices.of_size(16).as_machine()
    assert (t4.device, t4.supports_bfloat16, t4.name) == ("cuda", False, "Tesla T4")
    assert t4.free_bytes == t4.total_bytes == devices.find("t4").total_bytes
    assert any16.supports_bfloat16


@pytest.mark.parametrize(
    ("gib", "card"),
    [(8, "RTX 4060"), (16, "RTX 4080"), (24, "RTX 4090"), (40, "A100-SXM4-40GB"), (80, "H100")],
)
def test_a_size_is_compared_on_a_card_of_its_kind(gib: int, card: str) -> None:
    assert card in devices.with_rates(devices.of_size(gib)).name
    assert devices.with_rates(devices.find("t4")) == devices.find("t4")
