"""The light registry's files as something that is kept small every night."""

from collections.abc import Iterator
from typing import ClassVar

from ml_assets.lib.words import counted
from ml_assets.operations.light.artifacts import LightArtifacts
from ml_assets.operations.light.registry import Registry
from ml_assets.settings import Settings
from ml_assets.tables.store import Maintained, Retention


class LightFiles(Maintained):
    """Contents that no row names any more: the graph may have let go of them long after their run was deleted.

    Args:
        settings: of the home that they lie in.
    """

    name: ClassVar[str] = "files of runs"

    def __init__(self, settings: Settings) -> None:
        self._artifacts = LightArtifacts(Registry(settings), settings)

    def size(self) -> int:
        """Bytes of all contents."""
        return self._artifacts.content.size()

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Remove what nobody names."""
        found = self._artifacts.collect()
        if found.files:
            yield f"Removed {counted(found.files, 'file')} that no run names any more."
