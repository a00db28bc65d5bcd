"""Backups of a home: `back_up` while everything runs, `restore` into an empty home, `verify`.

What makes a backup one state: writers wait (tables/pause.py) while PostgreSQL's dumps begin, and the files of the other
stores get second names or are copied; that takes a second or two. Then everybody goes on, and the backup reads what it
has. Nothing that is removed or replaced meanwhile is missing, since a second name keeps a file; so expiry and clean-up
need not be stopped for longer than writers.
"""

from ml_assets.maintenance.backup.folder import BackupFolder, Progress
from ml_assets.maintenance.backup.restore import Restored, restore
from ml_assets.maintenance.backup.take import Made, back_up

__all__ = ["BackupFolder", "Made", "Progress", "Restored", "back_up", "restore"]
