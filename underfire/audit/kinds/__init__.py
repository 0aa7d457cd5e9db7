"""The kinds of cells; a new kind needs one file here and one line in `KINDS`.

Every kind is a module with the same names:

* `schema`: the columns of the table that its cells write, or None if they write no table;
* `about`: the columns that the plan states for each cell, such as a label, and that no result contains;
* `cells(spec, target, before)`: yields its cells of the plan, given the cells of the kinds before it;
* `compute(cell, inputs)`: returns the result of one cell;
* `views(spec)`: returns the tables of the ledger that show its results, as SQL queries by table name. A query may use
  the tables `KIND_written`, with the columns of `schema`, and `KIND_cells`, with those of `about`; both have the key of
  the cell in the column `cell`.
"""

from __future__ import annotations

from types import ModuleType

from underfire.audit.kinds import (
    answer,
    clean,
    craft,
    evade,
    explain,
    fit,
    fit_attack,
    gallery,
    masking,
    measure,
    probe,
    sample,
    score,
    surrogate,
    transfer,
)

KINDS: dict[str, ModuleType] = {
    "clean": clean,
    "craft": craft,
    "explain": explain,
    "fit_attack": fit_attack,
    "fit": fit,
    "score": score,
    "evade": evade,
    "measure": measure,
    "gallery": gallery,
    "probe": probe,
    "masking": masking,
    "answer": answer,
    "sample": sample,
    "surrogate": surrogate,
    "transfer": transfer,
}
"""The kinds by name, each after the kinds whose cells it needs."""
