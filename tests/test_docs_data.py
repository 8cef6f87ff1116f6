"""docs/data.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs" / "data.md"


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMOS_SPOOL", str(tmp_path / "spool"))
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if title := re.match(r"# (\w+)\.py\n", block):
            Path(f"{title[1]}.py").write_text(block, encoding="utf-8")
            monkeypatch.syspath_prepend(tmp_path)
            block = f"from {title[1]} import *"
        exec(compile(block, str(DOCS), "exec"), names)
    assert abs(names["minuit"].values["mass"] - 91.2) < 0.1  # type: ignore[attr-defined]
