"""Do the work of `underfire detect score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from underfire.cli.detecting import Setting, new_file, open_guard, scores_of, write_rows
from underfire.cli.images import open_images
from underfire.cli.progress import progress
from underfire.cli.shared import OUT, print_json


def score(
    setting: Setting, file: Path, images: str, n: int | None, size: int | None, out: Path | None, force: bool
) -> None:
    """Score images, and print a row for each of them or write the rows as a table.

    Raises:
        InputError: the file is none of a guard, or `out` exists. ModelError: it was fitted to another model. DataError:
            there are no images, or they have another size than those of the fit.
    """
    new_file(out, force, (".csv", ".parquet"))
    guard, model = open_guard(setting, file), setting.model
    assert guard.calibration is not None
    source = open_images(images, n=n, size=size, batch_size=setting.batch_size, seed=setting.seed, model=model)
    rows: list[dict[str, Any]] = []
    with progress(f"score by {guard.detector.name}", len(source.stems), unit="images", quiet=setting.quiet) as show:
        for batch in source.batches:
            x = batch.x.to(model.mean.device)
            predicted, found = model.predict(x).argmax(1), scores_of(setting, guard.detector.score, x)
            columns = zip(
                batch.ids,
                batch.y.tolist(),
                predicted.tolist(),
                found.tolist(),
                guard.calibration.p_values(found).tolist(),
                guard.threshold.flags(found).tolist(),
                strict=True,
            )
            for name, label, pred, value, p, flagged in columns:
                known = {"label": label} if source.labelled else {}
                row = {"id": name, **known, "pred": pred, "class": model.name_of(pred)}
                rows.append({**row, "score": value, "p_value": p, "flagged": flagged})
            show(len(rows))
    if out is not None:
        write_rows(rows, out)
        setting.say(f"written to {out}")
    if setting.as_json:
        print_json(rows)
    elif out is None and not setting.quiet:
        table = Table("image", "class", "score", "p-value", "flagged", box=None, header_style="dim", pad_edge=False)
        for row in rows:
            flagged = "yes" if row["flagged"] else "no"
            table.add_row(row["id"], row["class"], f"{row['score']:.4g}", f"{row['p_value']:.3g}", flagged)
        OUT.print(table)
        OUT.print(f"threshold {guard.threshold.value:.4g}: expected false-positive rate {guard.threshold.rate}")
