"""The command ``batchcls predict``."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.libraries import library_noise_hidden
from batchcls.cli.options import ENGINE, check_device
from batchcls.cli.printing import echo
from batchcls.cli.run import only_engine

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_CLASSES = 8
"""Most probabilities that the table shows of one image; ``--json`` gives all."""


@click.command()
@click.argument("images", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@ENGINE
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    callback=lambda context, option, device: check_device(device),
    help="Device to classify on; auto: the first GPU if there is one, or else the CPU.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Arithmetic on a CPU.  [default: bf16 if the CPU has it in hardware, or else fp32]",
)
@click.option(
    "--decoder",
    type=click.Choice(["turbo", "dali", "pillow"]),
    help="Image decoder, as for run.  [default: dali on a GPU, or else turbo]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with all probabilities.")
def predict(images: tuple[Path, ...], engine: Path | None, as_json: bool, **options: Any) -> None:
    """Classify a few IMAGES and print what they are; no file is written.

    Exits with code 3 if an image could not be read. For whole folders there is run.
    """
    from batchcls.inference.options import RunOptions  # after parsing: --help stays light
    from batchcls.inference.prediction import predict as classify
    from batchcls.inference.session import Session

    run_options = RunOptions(**options)
    with library_noise_hidden() as console, closing(Session(engine or only_engine(), run_options)) as session:
        console.quiet = True
        labels, table = session.info.labels, classify(session, list(images), run_options, console)
    rows = _rows(images, labels, table)
    if as_json:
        echo(*json.dumps(rows, indent=2, ensure_ascii=False).split("\n"))
    else:
        echo(*_lines(rows))
    if table["error"].null_count < len(table):
        sys.exit(3)


def _rows(images: tuple[Path, ...], labels: tuple[str, ...], table: "pa.Table") -> list[dict[str, Any]]:
    """For each image its path, label, probability, probabilities by label (most probable first), novelty, and error."""
    rows = []
    wanted = ("label", "probability", "probabilities", "novelty", "novel", "error")
    columns = [name for name in wanted if name in table.column_names]
    for image, values in zip(images, table.select(columns).to_pylist(), strict=True):
        by_label = dict(zip(labels, values["probabilities"] or (), strict=False))
        ordered = sorted(by_label.items(), key=lambda item: -item[1])
        rows.append({"path": _text(image), **values, "probabilities": dict(ordered) or None})
    return rows


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    paths = max(len(row["path"]) for row in rows)
    names = max(len(row["label"] or "") for row in rows)
    lines = []
    for row in rows:
        if row["error"]:
            lines.append(f"{row['path']:<{paths}}  {row['error']}")
            continue
        others = list(row["probabilities"].items())[1:_MOST_CLASSES]
        rest = len(row["probabilities"]) - 1 - len(others)
        runners_up = ", ".join(f"{label} {probability:.3f}" for label, probability in others)
        more = f", and {rest} more" if rest else ""
        novel = f"  looks unlike the images of the training: novelty {row['novelty']:.3f}" if row.get("novel") else ""
        answer = f"{row['label']:<{names}}  {row['probability']:.3f}  ({runners_up}{more})"
        lines.append(f"{row['path']:<{paths}}  {answer}{novel}")
    return lines


def _text(path: Path) -> str:
    from batchcls.storage.file_names import printable

    return printable(str(path))
