"""The kinds of cells; a new kind is one file here and one line in `KINDS`.

Every kind has the same parts:

* `schema`: the columns of the table that its cells write, or None where they write none;
* `about`: the columns that the plan knows of each cell, such as a label, which no result contains;
* `cells(spec, target, before)`: its cells in the plan, given those of the kinds before it;
* `compute(cell, inputs)`: the result of one cell;
* `views(spec)`: how the ledger shows its results: SQL queries by the name of their table. In them, `KIND_written` has
  the columns of `schema`, `KIND_cells` has those of `about`, and both have the key of the cell as `cell`.
"""

from __future__ import annotations

from types import ModuleType

from underfire.audit.kinds import clean, craft, explain, gallery, masking, measure

KINDS: dict[str, ModuleType] = {
    "clean": clean,
    "craft": craft,
    "explain": explain,
    "measure": measure,
    "gallery": gallery,
    "masking": masking,
}
"""The kinds by name, each after those that it needs."""
