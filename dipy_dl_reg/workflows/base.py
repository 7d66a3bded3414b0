"""The base class of the commands' workflows, and the function that runs a command.

The options of a command are defined by the signature and the docstring of the `run`
method of its class, as in DIPY.  Three situations that DIPY's workflows only log are
errors here: an output file exists already, two inputs have the same output file, or an
input is not an image.  Either all output files of a run are written, or none.

`--help` must be fast; therefore modules that need torch are imported inside `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import os
from pathlib import Path
from typing import Any, TypeAlias
import warnings

from dipy.utils.logging import logger
from dipy.workflows.multi_io import IOIterator
from dipy.workflows.workflow import Workflow

from dipy_dl_reg import validation
from dipy_dl_reg.workflows.command_line import parse_command_line
from dipy_dl_reg.workflows.commands import name_of_command
from dipy_dl_reg.workflows.exit_codes import UsageError, exit_with_code, usage_errors
from dipy_dl_reg.workflows.log import LogOptions

PathLike: TypeAlias = str | Path

#: Suffixes of NIfTI files.
NIFTI = (".nii", ".nii.gz")
#: Number of file names in a message.
_MAX_NAMES = 3


class _FilePlanner(IOIterator):
    """DIPY's rules for inputs and output names, without the creation of folders."""

    def create_directories(self) -> None:
        """Do nothing: folders are created when the files are written."""


class StrictWorkflow(Workflow):
    """A workflow that raises errors where DIPY's workflows only log a message.

    Attributes
    ----------
    log_options : LogOptions
        Options of the log, which `run_command` sets.
    """

    log_options = LogOptions()

    def plan(
        self,
        inputs: Sequence[Any],
        out_dir: PathLike,
        outputs: dict[str, str],
        *,
        others: Iterable[PathLike | None] = (),
        skip_existing: bool = False,
        adapt: Callable[[Path, Path], list[Path]] | None = None,
    ) -> list[tuple[list[Path], dict[str, Path]]]:
        """Assign outputs to inputs by DIPY's rules, and check all files.

        Parameters
        ----------
        inputs : sequence
            For each input, a path, a pattern, or a list of paths and patterns.
        out_dir : str or Path
            Folder of the outputs.
        outputs : dict
            File name of each output, by its parameter.
        others : iterable of str, Path or None, optional
            Further input files, which must not be overwritten.
        skip_existing : bool, optional
            Leave out each run of which all outputs exist; a line of the log says so.
        adapt : callable, optional
            Changes the output of a run: it is given the last input and the output, and
            returns the output's path and those of further outputs.

        Returns
        -------
        rows : list of tuple
            For each run, the list of its inputs and the dict of its outputs. Further
            outputs have numbers for names.

        Raises
        ------
        OSError
            If an input is missing, or an output exists or cannot be written.
        ValueError
            If the numbers of inputs differ, or two outputs have the same path.
        """
        if self._output_strategy not in ("absolute", "append", "prepend"):
            raise UsageError(
                "out_strat must be absolute, append or prepend, got "
                f"{self._output_strategy!r}"
            )
        planned = self._pair_files(inputs, out_dir, outputs)
        if adapt is not None:
            *_, last = planned.inputs
            planned.outputs = [
                [str(path) for path in adapt(Path(given), Path(names[0]))]
                for given, names in zip(last, planned.outputs)
            ]
        self.flat_outputs = [path for row in planned.outputs for path in row]
        self.last_generated_outputs = dict(zip(outputs, self.flat_outputs))
        self._check_collisions([*planned.inputs, filter(None, others)])
        rows = [
            (
                [Path(i) for i in given],
                dict(zip([*outputs, *map(str, range(len(names)))], map(Path, names))),
            )
            for *given, names in zip(*planned.inputs, planned.outputs)
        ]
        if skip_existing:
            rows = [row for row in rows if not _is_done(*row)]
            self.flat_outputs = [str(p) for _, files in rows for p in files.values()]
            if not rows:
                log_result("Nothing to do: all outputs exist")
        self.manage_output_overwrite()
        return rows

    def _pair_files(
        self, inputs: Sequence[Any], out_dir: PathLike, outputs: dict[str, str]
    ) -> _FilePlanner:
        """Find the inputs and the output paths of each run, by DIPY's rules."""
        planned = _FilePlanner(
            output_strategy=self._output_strategy, mix_names=self._mix_names
        )
        planned.set_inputs(
            *([i] if isinstance(i, (str, Path)) else list(i) for i in inputs)
        )
        counts = {len(i) for i in planned.inputs}
        if len(counts - {1}) > 1:
            raise ValueError(
                "the numbers of inputs must be equal, or one of them must be 1; got "
                + " and ".join(str(len(i)) for i in planned.inputs)
            )
        planned.set_out_dir(out_dir or ".")
        planned.set_out_fnames(*outputs.values())
        planned.create_outputs()
        return planned

    def plan_one(
        self,
        out_dir: PathLike,
        parameter: str,
        name: str,
        others: Iterable[PathLike | None] = (),
    ) -> Path:
        """Check the output of a workflow that writes one file from all its inputs.

        Parameters
        ----------
        out_dir : str or Path
            Folder of the output.
        parameter : str
            Parameter of the output.
        name : str
            File name of the output.
        others : iterable of str, Path or None, optional
            Files that must not be overwritten.

        Returns
        -------
        path : Path
            Path of the output.

        Raises
        ------
        OSError
            If it exists or cannot be written.
        ValueError
            If it is one of the other files.
        """
        path = Path(out_dir or ".") / name
        self.flat_outputs = [str(path)]
        self.last_generated_outputs = {parameter: str(path)}
        self._check_collisions([filter(None, others)])
        self.manage_output_overwrite()
        return path

    def _check_collisions(self, inputs: Iterable[Iterable[PathLike]]) -> None:
        """Check that no file is written twice, and no input is overwritten."""
        outputs = [Path(path).resolve() for path in self.flat_outputs]
        twice = {path for path in outputs if outputs.count(path) > 1}
        if twice:
            raise ValueError(
                f"some of {len(outputs)} outputs have the same name "
                f"({sorted(twice)[0]}): add --mix_names, or give each --out_* option "
                "another name"
            )
        given = {Path(path).resolve() for paths in inputs for path in paths}
        for path in given.intersection(outputs):
            raise ValueError(f"{path} is an input and would be overwritten")

    def manage_output_overwrite(self) -> bool:
        """Check that every output can be written.

        Returns
        -------
        writable : bool
            True.

        Raises
        ------
        FileExistsError
            If outputs exist and `--force` was not given.
        OSError
            If an output cannot be written.
        """
        from dipy_dl_reg.io.atomic_files import check_writable

        there = [str(path) for path in self.flat_outputs if Path(path).is_file()]
        if there and not self._force_overwrite:
            raise FileExistsError(
                f"existing outputs: {format_names(there)}; add --force to overwrite"
            )
        for path in self.flat_outputs:
            check_writable(path, overwrite=self._force_overwrite)
        return True


def check_suffix(name: str, suffixes: tuple[str, ...], parameter: str) -> str:
    """Check the suffix of a file name that is an option.

    Parameters
    ----------
    name : str
        The name that the user gave.
    suffixes : tuple of str
        Suffixes of the file's format.
    parameter : str
        Name of the parameter, for the error message.

    Returns
    -------
    name : str
        The same name.

    Raises
    ------
    UsageError
        If it has none of the suffixes.
    """
    with usage_errors():
        return validation.check_suffix(name, suffixes, parameter)


def format_names(paths: Sequence[PathLike]) -> str:
    """List the first files by name, and count the others.

    Parameters
    ----------
    paths : sequence of str or Path
        The files.

    Returns
    -------
    text : str
        Such as "a, b, c and 27 more".
    """
    named = ", ".join(map(str, paths[:_MAX_NAMES]))
    more = len(paths) - _MAX_NAMES
    return f"{named} and {more} more" if more > 0 else named


def _is_done(inputs: list[Path], outputs: dict[str, Path]) -> bool:
    """Whether all outputs of a run exist; if so, a message is logged."""
    done = all(path.is_file() for path in outputs.values())
    if done:
        images = ", ".join(map(str, inputs))
        existing = format_names(list(outputs.values()))
        logger.info(f"Skipped {images}: {existing} exist already")
    return done


def log_result(text: str) -> None:
    """Log the last line of a command, which is also shown with --quiet.

    Parameters
    ----------
    text : str
        The result in one line.
    """
    logger.info(text, extra={"result": True})


def run_command(flow: StrictWorkflow) -> None:
    """Run a workflow from the command line.

    Parameters
    ----------
    flow : StrictWorkflow
        The workflow; its options are in `sys.argv`.

    Raises
    ------
    SystemExit
        If it does not succeed, with a code of `exit_codes.EXIT_CODES`; the error is
        shown in one line.
    """
    # This must be set before torch is loaded.  Waiting threads then sleep, which is
    # many times faster if other programs use the same processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.formatwarning = _format_warning
    flow.log_options = options = LogOptions()
    arguments = parse_command_line(flow, options)
    with (
        exit_with_code(name_of_command(), is_verbose=lambda: options.verbose),
        options.configure(arguments) as log,
    ):
        try:
            flow.run(**arguments)
        except (Exception, KeyboardInterrupt) as error:
            log.write_error(error)
            raise


def _format_warning(
    message: object, category: object, filename: str, lineno: int, line: object = None
) -> str:
    """Format a warning as one line, without its position in the code."""
    return f"WARNING: {' '.join(str(message).split())}\n"
