"""Randomised smoothing, RS: the likeliest class under noise, with certified radii (Cohen et al., ICML 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.defenses.defended import Defended, Defense, normal
from underfire.defenses.n_version import vote_share
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.measures.statistics import clopper_pearson
from underfire.model import Classifier
from underfire.validate import at_least_one

ABSTAIN = -1
"""The class of an image for which the smoothed classifier does not decide."""


class Certificates(NamedTuple):
    """Classes of a smoothed classifier, and the radii within which they cannot change.

    Attributes:
        classes: int64 `[B]`; `ABSTAIN` where no class is certain enough.
        radius: L2 radius in units of the image, float64 `[B]`; 0 where the classifier abstains. Each holds with
            probability at least `1 - alpha`.
    """

    classes: Tensor
    radius: Tensor


class Smoothing(Defense):
    """A classifier that sees the images with Gaussian noise of a standard deviation `sigma`."""

    sigma = 0.25
    chunk = 256

    def answer(self, x: Tensor, generator: Generator) -> Tensor:
        """Return the logits of the images with noise."""
        logits: Tensor = self.undefended(x + self.sigma * normal(generator, x))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithm of the share of votes of each class, or under BPDA that of the mean probability."""
        if self.bpda:
            return super().forward(x)

        def voted(z: Tensor) -> Tensor:
            votes, probability = self.sample(z, self.samples)
            return vote_share(votes, probability).log()

        return self.passed(voted, x)

    @torch.no_grad()
    def sample(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return how often each class is predicted under noise, int64 `[B, K]`, and the mean probabilities `[B, K]`.

        Args:
            x: images `[B, C, H, W]`.
            count: number of draws of noise for each image; they pass the classifier `chunk` at a time.
        """
        generator = self.draws(x.device)
        if len(x) == 0:
            logits = self.undefended(x)
            return logits.long(), logits
        votes: Tensor | None = None
        for part in torch.arange(count * len(x), device=x.device).split(self.chunk):
            image = part // count
            logits = self.answer(x[image], generator)
            if votes is None:
                votes = torch.zeros(len(x), logits.shape[1], dtype=torch.int64, device=x.device)
                probability = torch.zeros(votes.shape, dtype=logits.dtype, device=x.device)
            votes.index_add_(0, image, F.one_hot(logits.argmax(1), logits.shape[1]))
            probability.index_add_(0, image, logits.softmax(1))
        assert votes is not None
        return votes, probability / count


class Smoothed(Defended):
    """A smoothed classifier, which certifies its answers."""

    module: Smoothing

    def certify(self, x: Tensor, *, n0: int = 100, n: int = 1000, alpha: float = 0.001) -> Certificates:
        """Return the classes of images, and the L2 radii within which the smoothed classifier keeps them (CERTIFY).

        The class is the most frequent one of `n0` draws. The lower Clopper-Pearson bound of its probability `p`, from
        `n` other draws, gives the radius `sigma · Φ⁻¹(p)`; if the bound is not above 1/2, the classifier abstains.

        Args:
            x: images `[B, C, H, W]`.
            n0: number of draws that choose the class.
            n: number of draws that bound its probability; the paper uses 100,000.
            alpha: probability of a wrong certificate, for each image.

        Raises:
            InputError: a number is below 1, or alpha is not in (0, 1/2).
        """
        at_least_one(n0=n0, n=n)
        _check_alpha(alpha)
        guess = self._votes(x, n0).argmax(1)
        hits = self._votes(x, n).gather(1, guess[:, None])[:, 0]
        low = [clopper_pearson(k, n, 1 - 2 * alpha).low for k in hits.tolist()]
        bound = torch.tensor(low, dtype=torch.float64, device=x.device)
        certain = bound > 0.5
        radius = torch.where(certain, self.module.sigma * torch.special.ndtri(bound), 0.0)
        return Certificates(torch.where(certain, guess, ABSTAIN), radius)

    def decide(self, x: Tensor, *, n: int = 1000, alpha: float = 0.001) -> Tensor:
        """Return the classes that the smoothed classifier predicts, int64 `[B]`, `ABSTAIN` where unsure (PREDICT).

        A class is that of the smoothed classifier with probability at least `1 - alpha`: a binomial test compares the
        two most frequent classes of `n` draws.

        Raises:
            InputError: `n` is below 1, or alpha is not in (0, 1/2).
        """
        from scipy.special import betainc

        at_least_one(n=n)
        _check_alpha(alpha)
        top = self._votes(x, n).topk(2, 1)
        first, second = (top.values[:, i].cpu().numpy() for i in range(2))
        p = 2 * betainc(first, second + 1, 0.5)  # twice the probability of at least `first` of all votes for the two
        sure = torch.from_numpy(p <= alpha).to(x.device)
        return torch.where(sure, top.indices[:, 0], ABSTAIN)

    def _votes(self, x: Tensor, count: int) -> Tensor:
        """Return how often each class is predicted, in evaluation mode, int64 `[B, K]`."""
        with frozen(self):
            return self.module.sample(x, count)[0]


@card(
    "defense",
    paper="Cohen, Rosenfeld and Kolter, Certified Adversarial Robustness via Randomized Smoothing, ICML 2019",
    differentiable=False,
    random=True,
)
def randomised_smoothing(
    model: Classifier,
    *,
    sigma: float = 0.25,
    samples: int = 100,
    chunk: int = 256,
    generator: Generator | None = None,
) -> Smoothed:
    """Answer with the class that the model predicts most often under Gaussian noise (RS).

    Noisy images are not clipped, as in the paper. The logits are the logarithm of the share of votes; a tie is decided
    by the mean probability. BPDA rule: the logarithm of the mean probability over the draws (Salman et al., Provably
    Robust Deep Learning via Adversarially Trained Smoothed Classifiers, NeurIPS 2019). `certify` returns radii, and
    `decide` abstains. A model that was not trained with noise, as by `training.gaussian_noise`, gets many images wrong.

    Args:
        sigma: standard deviation of the noise, in units of the image.
        samples: number of draws of noise in each pass.

    Raises:
        InputError: sigma is not positive, or a number is below 1.
    """
    at_least_one(samples=samples, chunk=chunk)
    if not sigma > 0:
        raise InputError(f"randomised_smoothing needs sigma > 0, got {sigma}")
    module = Smoothing(model, randomised_smoothing, generator, samples=samples)
    module.sigma, module.chunk = float(sigma), chunk
    return Smoothed(module)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise InputError(f"alpha, the probability of a wrong answer, must be in (0, 1/2), such as 0.001, got {alpha}")
