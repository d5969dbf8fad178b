"""Write files that a kill at any instant leaves whole."""

from __future__ import annotations

import contextlib
import os

from .errors import AwsOvsError


def replace(path: str, text: str) -> None:
    """Put `text` in place of the file's content in one step; its directory is made if missing.

    Raises:
        AwsOvsError: it cannot be written; the file is as it was.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _sweep(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of an earlier process with our number
        with open(temporary, "x", encoding="utf-8") as file:  # follows no link that somebody has put there
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise AwsOvsError(f"{path} cannot be written ({error.strerror})", f"see 'df {os.path.dirname(path)}'") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
        _sweep(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise AwsOvsError(f"{path} cannot be removed ({error.strerror})", "see 'mount' and 'dmesg'") from None


def _sweep(path: str) -> None:
    """Remove the temporary files of processes that were killed in `replace`."""
    directory, name = os.path.split(path)
    for other in os.listdir(directory):
        if other.startswith(f"{name}.") and other.endswith(".tmp"):
            pid = other[len(name) + 1 : -4]
            if not os.path.exists(f"/proc/{pid}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{other}")
