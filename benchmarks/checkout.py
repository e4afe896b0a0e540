"""Another checkout of batchcls, measured by the benchmarks of this one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

THIS_CHECKOUT = Path(__file__).parent.parent.resolve()


@contextmanager
def import_variables(checkout: Path) -> Iterator[dict[str, str]]:
    """A context that yields environment variables with which Python imports the batchcls of ``checkout``.

    The package ``benchmarks`` is still imported from this checkout, by a link in a folder of its own. Whatever folder a
    process runs in, and whatever is installed, comes after both.
    """
    with TemporaryDirectory() as linked:
        os.symlink(THIS_CHECKOUT / "benchmarks", Path(linked) / "benchmarks")
        path = [linked, str(checkout.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
        yield {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
