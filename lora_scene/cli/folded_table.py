"""Tables that a narrow terminal breaks within words, and never cuts off."""

from __future__ import annotations

from typing import Any

import rich.table


class FoldedTable(rich.table.Table):
    """A table of rich's whose cells are whole at any width: half a handle or number misleads."""

    def add_column(self, *args: Any, **kwargs: Any) -> None:
        """Add a column that folds, as in `rich.table.Table.add_column`."""
        super().add_column(*args, **{"overflow": "fold", **kwargs})
