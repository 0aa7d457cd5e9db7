"""Take the images, maps and attacks of a study from the folder of an audit run; nothing is attacked or explained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NoReturn

from torch import Tensor

from underfire.audit.graph import Cell
from underfire.audit.kinds.craft import adversarial
from underfire.audit.ledger import HEAD, Ledger
from underfire.audit.plan import plan
from underfire.audit.result import Inputs
from underfire.audit.sizes import size
from underfire.audit.store import Store
from underfire.audit.target import open_target
from underfire.errors import InputError, nearest, shown
from underfire.measures.prediction import confidence
from underfire.records import Batch
from underfire.study.attacked import Versions
from underfire.study.design import Item

_AGAIN = "run the audit again, with a larger keep_gb"


def is_run(images: str) -> bool:
    """Return whether a text names the folder of an audit run, and not images."""
    from pathlib import Path

    return (Path(images) / HEAD).is_file()


class KeptRun:
    """The results that a run kept: images, answers, maps of one interpreter, and attacked images.

    Args:
        folder: the run folder.
        interpreter: the label of an interpreter of the run; None is the only one.

    Raises:
        InputError: the run has no such interpreter. LedgerError: the folder has no run, or a damaged one.
    """

    def __init__(self, folder: str, interpreter: str | None) -> None:
        ledger = Ledger(folder)
        titles = [entry.title for entry in ledger.spec.interpreters]
        if interpreter is None and len(titles) != 1:
            known = ", ".join(titles) or "none"
            raise InputError(f"--interpreter is missing: the maps of which interpreter of the run? It has {known}")
        if interpreter is not None and interpreter not in titles:
            raise InputError(f"the run has no interpreter {shown(interpreter)}; {nearest(interpreter, titles)}")
        self.folder, self.spec, self.interpreter = folder, ledger.spec, interpreter or titles[0]
        self.target = open_target(ledger.spec)
        self.labelled = not self.target.data.answered
        self._store = Store(folder)
        self._inputs = Inputs(self.target, self._store, self._lost)
        self._cells = plan(ledger.spec, self.target)
        self._keys, self._maps = self._store.keys(), dict[str, Tensor]()

    def name_of(self, index: int) -> str:
        """Return the name of a class, or its number if it has none."""
        labels = self.target.labels
        return labels[index] if labels else str(index)

    @property
    def about(self) -> dict[str, Any]:
        """The names of the model, the interpreter, its options and the data, for the page of results."""
        (entry,) = (e for e in self.spec.interpreters if e.title == self.interpreter)
        names = {"model": self.spec.model.uri, "interpreter": entry.name, "data": self.spec.data.uri}
        return {**names, "options": dict(entry.options), "run": self.folder}

    def items(self) -> list[Item]:
        """Return an item for every image, with the model's prediction, and with the label if there are labels."""
        found: list[Item] = []
        for cell, batch in self._clean():
            logits = self._arrays(cell)["logits"]
            predicted = logits.argmax(1)
            columns = (batch.ids, batch.y.tolist(), predicted.tolist(), confidence(logits, predicted).tolist())
            found += [Item(n, y if self.labelled else None, k, c) for n, y, k, c in zip(*columns, strict=True)]
        return found

    def batches(self) -> Iterator[Batch]:
        """Yield the images, in the order of `items`; `maps` then returns their maps."""
        for cell, batch in self._clean():
            self._maps = {batch.ids[0]: self._map(cell, None)}
            yield batch

    def maps(self, batch: Batch, rows: list[int], classes: Tensor) -> Tensor:
        """Return the maps of the predicted classes of some images of the batch that `batches` yielded last."""
        return self._maps[batch.ids[0]][rows]

    def versions(self, eps: float) -> Iterator[Versions]:
        """Yield the images clean, under PGD and under ADV² on the interpreter, at one size in L-infinity.

        Raises:
            InputError: the run has no such attacks, or did not keep their images or maps.
        """
        attacks = [self._attack("pgd", eps), self._attack("adv2", eps)]
        for cell, batch in self._clean():
            images, logits = {"clean": batch.x}, {"clean": self._arrays(cell)["logits"]}
            maps = {"clean": self._map(cell, None)}
            for name, found in zip(("pgd", "adv2"), attacks, strict=True):
                craft = next(one for one in found if one.needs["clean"].key == cell.key)
                self._arrays(craft)
                images[name], logits[name] = adversarial(craft, self._inputs)
                maps[name] = self._map(cell, craft)
            labels = batch.y if self.labelled else batch.y.new_full(batch.y.shape, -1)
            yield Versions(batch.ids, labels, images, logits, maps)

    def _attack(self, name: str, eps: float) -> list[Cell]:
        """Return the cells of the first attack of this name at a size in L-infinity, for its first seed."""
        found = []
        for cell in self._cells:
            if cell.kind == "craft" and cell.about["attack"] == name and cell.about["norm"] == "linf":
                aims = name == "pgd" or cell.about["attacked"] == self._aimed
                found += [cell] if aims and cell.about["targeted"] is False else []
        here = [cell for cell in found if math.isclose(cell.options["sizes"][0], eps, rel_tol=1e-3)]
        if not here:
            sizes = ", ".join(dict.fromkeys(size("linf", cell.options["sizes"][0]) for cell in found)) or "none"
            what = "pgd" if name == "pgd" else f"adv2 on {self.interpreter}"
            raise InputError(
                f"--noticing {size('linf', eps)} needs untargeted pgd and adv2 of this size in linf in the run; its "
                f"{what} has the sizes: {sizes}"
            )
        first = here[0]
        return [c for c in here if (c.about["label"], c.about["seed"]) == (first.about["label"], first.about["seed"])]

    @property
    def _aimed(self) -> str:
        from underfire.audit.aims import joined

        return joined([self.interpreter])

    def _clean(self) -> Iterator[tuple[Cell, Batch]]:
        for cell in self._cells:
            if cell.kind == "clean":
                yield cell, self._inputs.batch(cell).to("cpu")

    def _map(self, clean: Cell, craft: Cell | None) -> Tensor:
        """Return the kept maps of the clean images, or of the images of an attack."""
        for cell in self._cells:
            if cell.kind == "explain" and cell.about["interpreter"] == self.interpreter:
                of = cell.needs.get("craft")
                if cell.needs["clean"].key == clean.key and (of and of.key) == (craft and craft.key):
                    return self._arrays(cell)["map"]
        raise InputError(f"the run has no maps of {self.interpreter}")

    def _arrays(self, cell: Cell) -> dict[str, Tensor]:
        """Return the kept arrays of a cell, on the CPU.

        Raises:
            InputError: the run has no result of this cell for the model and data as they are, or dropped its arrays.
        """
        if cell.key not in self._keys:
            raise InputError(
                f"{self.folder} has no result of {cell.title} for this version of underfire and the model and the data "
                "as they are now; run the audit again"
            )
        return {name: value.cpu() for name, value in self._inputs.arrays(cell).items()}

    def _lost(self, cell: Cell, inputs: Inputs) -> NoReturn:
        raise InputError(f"{self.folder} did not keep the arrays of {cell.title}; {_AGAIN}")
