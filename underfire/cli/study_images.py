"""The model and the images of a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from underfire.cli.images import ImageInput
    from underfire.model import Classifier
    from underfire.records import Batch


class StudyImages:
    """The model and the images, which are read twice: to classify all of them, and to explain the chosen ones."""

    n: int | None = None
    labelled = False

    def __init__(
        self, images: str, model: Classifier, size: int | None, batch_size: int, seed: int, quiet: bool
    ) -> None:
        from underfire.domains import domain_of

        self.images, self.model, self.size, self.batch_size = images, model, size, batch_size
        self.seed, self.quiet = seed, quiet
        domain_of(self.model).require_images("study prepare")

    def draw(self, pool: int | None, enough: int) -> None:
        """Set the number of images that are classified to `pool`; if it is None, to `enough`, but at most to all."""
        from underfire import data

        found = self._open()  # raises if the images cannot be read
        count = len(data.load(self.images)) if found.labelled else len(found.stems)
        self.n, self.labelled = min(enough, count) if pool is None else pool, found.labelled

    def batches(self, what: str) -> Iterator[Batch]:
        """Yield all images in batches on the device, under a progress bar."""
        from underfire.cli.progress import progress
        from underfire.domains import check_inputs

        source, done = self._open(), 0
        with progress(what, len(source.stems), unit="images", quiet=self.quiet) as show:
            for batch in source.batches:
                check_inputs(self.model, batch.x, batch.y.clamp_min(0))  # -1 means no label
                yield batch.to(str(self.model.mean.device))
                done += len(batch)
                show(done)

    def explainer(self, entry: Any) -> Any:
        """Return a function `(x, y) -> map` that explains images for classes."""
        from underfire.audit.methods import interpreter_of
        from underfire.catalog import find

        find("interpreter", entry.name).check_domain(self.model.domain.name)
        interpret = interpreter_of(entry)
        return lambda x, y: interpret(self.model, x, y)

    def _open(self) -> ImageInput:
        """Open the images, from the beginning."""
        from underfire.cli.images import open_images

        return open_images(
            self.images,
            n=self.n,
            size=self.size,
            batch_size=self.batch_size,
            seed=self.seed,
            model=self.model,
        )
