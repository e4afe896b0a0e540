"""The line that every log here begins with: where, and with what, its figures were measured."""

from batchcls import machine


def machine_line() -> str:
    """CPU, its instruction sets, cores, and the version."""
    features = " ".join(machine.cpu_features())
    return f"{machine.cpu_model()} ({features}), {machine.cores()} cores, batchcls {machine.versions().get('batchcls')}"
