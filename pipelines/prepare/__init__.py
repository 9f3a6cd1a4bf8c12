"""Make the canonical lists of a data set, `train.txt`, `val.txt`, `test.txt` and `labels.txt`, from what users have."""

from __future__ import annotations

from pipelines.prepare.folder import FolderSplit, split_folder
from pipelines.prepare.lists import Prepared, PreparedList, prepare_lists
from pipelines.prepare.official import prepare_official

__all__ = ["FolderSplit", "Prepared", "PreparedList", "prepare_lists", "prepare_official", "split_folder"]
