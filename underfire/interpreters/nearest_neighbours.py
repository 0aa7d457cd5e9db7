"""Show the known images that are nearest in feature space (Caruana et al., Case-Based Explanation, AMIA 1999)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.feature_space import Known, nearest_known, read_known_images, require_fitted
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.records import Examples
from underfire.validate import at_least_one

if TYPE_CHECKING:
    from underfire.data import Dataset


@card(
    "interpreter",
    name="nearest_neighbours",
    paper="Caruana, Kangarloo, Dionisio, Sinha and Johnson, Case-Based Explanation of Non-Case-Based Learning Methods, "
    "AMIA Symposium 1999",
    gives="examples",
    family="by example",
    differentiable=False,
    second_order=False,
)
class NearestNeighbours:
    """Show the `k` known images that are nearest to an image in the feature space of a layer, by exhaustive search.

    Args:
        k: how many known images are shown.
        layer: the layer whose output, averaged over space, is compared; None is the last spatial layer.
        cosine: compare by one minus the cosine instead of the Euclidean distance.
        same_class: show only known images whose label is the class that is explained.
        memory: MiB for the outputs of the layers while the known images are read.
    """

    def __init__(
        self,
        *,
        k: int = 5,
        layer: str | None = None,
        cosine: bool = False,
        same_class: bool = False,
        memory: float = MEMORY,
    ) -> None:
        self.k, self.layer, self.cosine, self.same_class, self.memory = k, layer, cosine, same_class, memory
        self._known: Known | None = None

    def fit(self, model: nn.Module, data: Dataset) -> NearestNeighbours:
        """Read the features of the known images.

        Raises:
            DataError: there are no images. ModelError: there is no such layer, or features are not finite.
        """
        at_least_one(k=self.k)
        self._known = read_known_images(model, data, self.layer, self.memory)
        return self

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Examples:
        """Return the nearest known images of each image; the class `y` `[B]` matters only with `same_class`.

        Raises:
            NotFitted: `fit` was not called. DataError: `y` is wrong.
        """
        known = require_fitted(self._known, "nearest_neighbours")
        logits, features = known.seen(model, x)
        class_score(logits, y)
        allowed = (y, known.y) if self.same_class else None
        distance, index = nearest_known(
            features, known.features, self.k, allowed=allowed, cosine=self.cosine, memory=self.memory
        )
        return known.examples(index, distance, ("neighbour",) * self.k)
