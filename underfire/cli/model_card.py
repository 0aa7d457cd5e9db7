"""The model card of a trained classifier: how it was trained, and what an audit of it found."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, find
from underfire.cli.progress import StagedBar

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.model import Classifier

AUDITED = 200  # test images of the audit
STRONG = "autoattack"  # the attack beside PGD
ADV2 = {"steps": 60, "warm_steps": 20}  # the options of the attack on explanations
_STEPS = 20  # of PGD


@dataclass(frozen=True)
class Judgement:
    """The measurements on test images; empty without them.

    Attributes:
        figures: numbers and intervals by name.
        sentences: findings in words: the gap and the masking checks.
        report: the page of the audit.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    report: Path | None = None


def judged(
    model: Classifier, test: Dataset, eps: float, norm: str | None, weights: Path | None, quiet: bool
) -> Judgement:
    """Return the accuracy of a classifier on test images; with `weights`, also the findings of an audit.

    The audit attacks at most `AUDITED` images at eps by PGD, by AutoAttack, and by ADV² on the usual interpreters, and
    checks for masked gradients. Its results and its page are in the folder `NAME.audit` beside the weights.
    """
    clean = sum(int((model.predict(b.x.to(model.mean.device)).argmax(1).cpu() == b.y).sum()) for b in test.batches(256))
    figures: dict[str, Any] = {"test images": len(test), "accuracy": clean / len(test)}
    if weights is None:
        return Judgement(figures)
    from underfire import audit, report
    from underfire.audit.sizes import threat
    from underfire.audit.templates import usual_methods

    norm = norm or "linf"
    usual = usual_methods(model, test[:2].to(str(model.mean.device)))
    attacks: list[Any] = [{"name": "pgd", "label": "PGD", "norm": norm, "eps": eps, "steps": _STEPS}]
    others: list[tuple[str, dict[str, Any]]] = [(STRONG, {})]
    others += [("adv2", {"interpreter": one, **ADV2}) for one in usual.interpreters]
    for name, more in others:
        if norm in find("attack", name).facts.norms:
            attacks.append({"name": name, "norm": norm, "eps": eps, **more})
    folder = weights.with_suffix(".audit")
    with ExitStack() as stack:
        bar = StagedBar(stack, "audit", "images", "checking the model and the images", quiet)
        chosen = test if len(test) <= AUDITED else test.subset(AUDITED)
        results = audit(  # type: ignore[operator] # mypy does not know that the package can be called
            model,
            chosen,
            attacks,
            usual.interpreters,
            out=folder,
            progress=lambda event: bar(event.done, event.total, share=event.share),
            masking=True,
        )
    found = results.findings
    page = report.html(results.ledger, folder / "report.html")
    figures["audited images"] = len(chosen)
    for result in found.attacks:
        figures[f"accuracy under {result.label}, {threat(result.norm, result.eps)}"] = str(result.robust)
    failed = [check for check in found.checks if not check.passed]
    figures["masking checks passed"] = f"{len(found.checks) - len(failed)} of {len(found.checks)}"
    warnings = tuple(f"WARNING {check.name}: {check.detail}" for check in failed)
    sentences = tuple(filter(None, (found.verdict, found.gap, *warnings)))
    return Judgement(figures, sentences, page)


def trained_uri(uri: str, weights: Path) -> str:
    """Return the URI of the trained model: the weights with the architecture of the model; empty if it has no name.

    >>> trained_uri("zoo:resnet20_cifar10", Path("w.safetensors"))
    'w.safetensors?arch=resnet20_cifar10'
    >>> trained_uri("timm:resnet18?pretrained=false&num_classes=10", Path("w.safetensors"))
    'w.safetensors?arch=timm:resnet18&num_classes=10'
    """
    path, _, query = uri.partition("?")
    options = [
        word for word in query.split("&") if word and word.partition("=")[0] not in ("pretrained", "key", "prefix")
    ]
    scheme, colon, name = path.partition(":")
    if colon and scheme in ("zoo", "timm", "torchvision", "python"):
        options.insert(0, f"arch={name if scheme == 'zoo' else path}")
    elif not any(word.startswith("arch=") for word in options):
        return ""
    return f"{weights}?{'&'.join(options)}"


def model_card(card: Card[Any], about: dict[str, str], uri: str, judgement: Judgement) -> str:
    """Return the model card of a trained classifier as Markdown.

    Args:
        card: the method of training.
        about: how it was trained, by name.
        uri: the URI of the trained model; empty if it has none.
        judgement: what was measured.
    """
    lines = [f"# {about['method']}: {about['model']}", "", card.summary, "", f"Source: {card.paper}.", ""]
    if uri:
        lines += [f"Use it as `{uri}`.", ""]
    lines += ["## Training", "", "| what | value |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in about.items()]
    lines += ["", "## Evaluation", ""]
    if not judgement.figures:
        lines.append("Not evaluated; `--test URI` measures the accuracy, and `--audit` attacks the classifier.")
    else:
        lines += ["| what | value |", "| --- | --- |"]
        lines += [
            f"| {name} | {f'{value:.4f}' if isinstance(value, float) else _cell(str(value))} |"
            for name, value in judgement.figures.items()
        ]
        lines += ["", *(f"- {sentence}" for sentence in judgement.sentences)]
        if judgement.report is not None:
            lines += ["", f"Report of the audit: `{judgement.report}`"]
        else:
            lines += ["", "No attack was run on it; `--audit` runs some."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
