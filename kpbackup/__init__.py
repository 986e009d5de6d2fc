"""kpbackup: backups of MySQL and MariaDB that were restored before you needed them."""

__version__ = "0.1.0"
