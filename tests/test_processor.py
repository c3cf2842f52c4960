"""Whether merges on this processor have the bytes that they have elsewhere."""

from pathlib import Path

import pytest

import tasks.processor as processor
from tasks.processor import has_fma


@pytest.mark.parametrize(
    ("text", "expected"),
    [("model name\t: x\nflags\t\t: fpu avx2 fma bmi2\n", True), ("flags\t\t: fpu sse2 avx\n", False), ("", None)],
)
def test_x86_says_it_by_its_flags(text: str, expected: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    assert has_fma() is expected


def test_all_of_arm_can(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    assert has_fma() is True


def test_a_system_that_does_not_say_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    assert has_fma() is None
