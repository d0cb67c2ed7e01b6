"""Train the same graphs on old and new onnxruntime: ``python -m tests.runtimes``.

The graphs are built here, once; each runtime trains them in an environment that holds only numpy
and onnxruntime. All must come to the parameters that torch comes to.
"""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np

from fedfleet.tables import table
from tests.runtimes import cases
from tests.runtimes.environments import RUNTIMES, Runtime, find_python, make

#: Norm of the difference to torch's parameters over their norm, after 10 steps.
TOLERANCE = 1e-5
EXPECTED = "trained-by-torch.npz"
_TRAIN_S = 120
_SCRIPT = Path(__file__).with_name("train_alone.py")


def trained(python: Path, folder: Path, out: Path) -> tuple[dict[str, object], dict[str, float]]:
    """Return the versions that trained, and each graph's relative difference to torch.

    Raises:
        subprocess.CalledProcessError: A graph does not run; the reason is on stderr.
    """
    command = [python, "-I", _SCRIPT, folder, out]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_TRAIN_S)
    with np.load(out) as results, np.load(folder.parent / EXPECTED) as expected:
        differences = {
            name: float(np.linalg.norm(results[name] - expected[name]))
            / float(np.linalg.norm(expected[name]))
            for name in expected.files
        }
    return json.loads(told.stdout), differences


def play(runtime: Runtime, graphs: Path, root: Path) -> tuple[str, ...] | None:
    """Return a row of the table; None where no fitting Python is here."""
    python = find_python(runtime.pythons)
    if python is None:
        return None
    inside = make(runtime, python, root / runtime.name)
    versions, differences = trained(inside, graphs, root / f"{runtime.name}.npz")
    if versions["others"]:
        message = f"{runtime.name}: {versions['others']} can be imported in {root / runtime.name}"
        raise click.ClickException(message)
    cells = (f"{differences[name]:.1e}" for name in cases.RECIPES)
    verdict = "ok" if max(differences.values()) <= TOLERANCE else "DIFFERS"
    names = (str(versions[key]) for key in ("onnxruntime", "python", "numpy"))
    return (*names, *cells, verdict)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "runtimes"))
@click.option("--strict", is_flag=True, help="Fail when a runtime has no Python here.")
def main(out: Path, strict: bool) -> None:
    """Compare the parameters after 10 steps on every runtime with those of torch."""
    out = out.resolve()
    graphs = out / "graphs"
    np.savez(out / EXPECTED, **cases.write(graphs))
    rows, skipped = [], []
    for runtime in RUNTIMES:
        click.echo(f"onnxruntime {runtime.name}", err=True)
        row = play(runtime, graphs, out)
        if row is None:
            skipped.append(f"{runtime.name}: none of Python {', '.join(runtime.pythons)} is here")
        else:
            rows.append(row)
    click.echo(table(("onnxruntime", "python", "numpy", *cases.RECIPES, "verdict"), rows))
    click.echo(f"relative difference to torch after {cases.STEPS} steps, at most {TOLERANCE:g}")
    for reason in skipped:
        click.echo(f"SKIPPED {reason}")
    if any(row[-1] != "ok" for row in rows) or (strict and skipped) or not rows:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m tests.runtimes")
