"""Where the artifacts of runs lie, as their URIs say."""

from pathlib import Path
from urllib.parse import unquote, urlsplit


def local_folder(uri: str | None) -> Path | None:
    """The folder on this machine that a `file:` URI or an absolute path names; None for anything else."""
    if not uri:
        return None
    try:
        parts = urlsplit(uri)
    except ValueError:  # `file://[` and the like
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme and Path(uri).is_absolute() else None


def artifact_root(location: str | None) -> Path | None:
    """The folder on this machine below which an MLflow store keeps artifacts; None if it does so elsewhere.

    Whoever runs the store has named it, while the place of any experiment may be named by whoever makes that.

    Args:
        location: of the experiment that every store begins with, which lies right below that folder.
    """
    folder = local_folder(location)
    # Right below / it would allow every folder.
    return None if folder is None or folder.parent == folder.parent.parent else folder.parent
