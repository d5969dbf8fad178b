"""Writing files that a kill at any instant leaves whole."""

from __future__ import annotations

import os


def replace(path: str, text: str) -> None:
    """Put `text` in place of the file's content in one step; its directory is made if missing."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
