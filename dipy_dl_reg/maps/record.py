"""The record of a registration: how its map was computed.

A `RegistrationRecord` holds plain values only, so that it can be stored as JSON beside
the results, and be written into a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
import platform
from typing import Any

#: Packages whose versions are recorded.
_PACKAGES = ("dipy", "torch", "numpy", "scipy", "nibabel")


@dataclass(frozen=True)
class MetricRecord:
    """The metric of one channel, and why it was used.

    Attributes
    ----------
    name : str
        Its name, such as "CC".
    meaning : str
        What it measures, such as "local correlation".
    reason : str
        Why it was used: sentences with the values on which the choice depends.
    weight : float
        Its part of the energy; the weights of all channels sum to 1.
    """

    name: str
    meaning: str
    reason: str
    weight: float = 1.0


@dataclass(frozen=True)
class LevelRecord:
    """One level of the refinement.

    Attributes
    ----------
    level : int
        Number of the level; 0 is the finest.
    iterations : int
        Number of iterations that were done.
    seconds : float
        Time of the level.
    energies : tuple of float
        Energy of each iteration; lower is better.
    """

    level: int
    iterations: int
    seconds: float
    energies: tuple[float, ...] = ()


@dataclass(frozen=True)
class RegistrationRecord:
    """How a map was computed.

    Attributes
    ----------
    metrics : tuple of MetricRecord
        One for each channel.
    network : str or None
        Name of the network that was tried; None if none was.
    network_used : bool
        Whether refinement started from the network's field.
    network_reason : str
        Why its field was used or not.
    start : tuple of str
        Where the initial field comes from: "landmarks", "network" and "search", in the
        order in which they were applied; empty if there was none.
    levels : tuple of LevelRecord
        Levels of the refinement, the coarsest first.
    seconds : dict of float
        Time of each step, in the order of the steps.
    device : str
        The device, and the number of threads on the CPU.
    repairs : int
        Rounds of repair of the final fields, see `Quality`.
    similarity : dict of float or None
        Mean squared local correlation of the images: "raw" (by their affines alone),
        "affine" (with the prealign) and "deformed"; None or NaN where it is unknown.
    affine_steps : tuple of str
        Steps of the affine registration that gave the prealign.
    landmark_error : float or None
        Mean distance of mapped static landmarks from moving landmarks, mm.
    versions : dict of str
        Versions of this package, of those it stands on, of Python and of the system.
    command : str or None
        The command or the call; None if unknown.
    anatomy_used : bool
        Whether the result depends on anatomy maps of the images.
    anatomy_reason : str
        Why they were used or not.

    See Also
    --------
    DeepRegistration : after `optimize`, ``registration.record`` is one.
    write_report : writes the record into the report.

    Examples
    --------
    >>> import json
    >>> import numpy as np
    >>> from dipy_dl_reg import DeepRegistration, RegistrationRecord
    >>> x, y = np.mgrid[-1:1:32j, -1:1:32j]
    >>> static, moving = np.exp(-8 * (x**2 + y**2)), np.exp(-8 * (x**2 + 2 * y**2))
    >>> registration = DeepRegistration("SSD", level_iters=[5])
    >>> mapping = registration.optimize(static=static, moving=moving)
    >>> record = registration.record
    >>> record.metrics[0].name, record.levels[0].iterations
    ('SSD', 5)
    >>> stored = json.dumps(record.as_dict())
    >>> RegistrationRecord.from_dict(json.loads(stored)).network == record.network
    True
    """

    metrics: tuple[MetricRecord, ...]
    network: str | None
    network_used: bool
    network_reason: str
    start: tuple[str, ...]
    levels: tuple[LevelRecord, ...]
    seconds: Mapping[str, float]
    device: str
    repairs: int = 0
    similarity: Mapping[str, float | None] = field(default_factory=dict)
    affine_steps: tuple[str, ...] = ()
    landmark_error: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    anatomy_used: bool = False
    anatomy_reason: str = ""

    def with_affine(
        self, steps: Sequence[object], seconds: float
    ) -> RegistrationRecord:
        """Add the affine registration that came before.

        Parameters
        ----------
        steps : sequence of str
            Its steps.
        seconds : float
            Its time.

        Returns
        -------
        record : RegistrationRecord
            A new record.
        """
        names = tuple(str(getattr(step, "__name__", step)) for step in steps)
        times = {"affine registration": seconds, **self.seconds}
        return replace(self, affine_steps=names, seconds=times)

    def as_dict(self) -> dict[str, Any]:
        """Convert the record to values that JSON can hold.

        Returns
        -------
        values : dict
            Dictionaries, lists, strings, numbers and None; numbers that are not finite
            are None.
        """
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RegistrationRecord:
        """Make a record from the result of `as_dict`.

        Parameters
        ----------
        values : dict
            The values, such as those read from a JSON file.

        Returns
        -------
        record : RegistrationRecord
            The record.
        """
        lists = {name: tuple(values[name]) for name in ("start", "affine_steps")}
        metrics = tuple(MetricRecord(**each) for each in values["metrics"])
        levels = tuple(
            LevelRecord(**each | {"energies": tuple(each["energies"])})
            for each in values["levels"]
        )
        return cls(**{**values, **lists, "metrics": metrics, "levels": levels})


def _plain(value: Any) -> Any:
    """The value with lists for tuples, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def list_versions() -> dict[str, str]:
    """List the versions on which a result depends.

    Returns
    -------
    versions : dict of str
        Versions of this package, of those it stands on, of Python and of the system.
    """
    package = __name__.partition(".")[0]
    versions = {package: import_module(package).__version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, "python": platform.python_version(), "system": _system()}


def _system() -> str:
    """Name and architecture of the operating system."""
    return f"{platform.system()} {platform.machine()}"
