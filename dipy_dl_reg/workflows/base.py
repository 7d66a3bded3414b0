"""What the commands share: workflows that stop where DIPY's would go on.

What DIPY's workflows log and step over is an error here: an output that exists, two
inputs that give one output, an input that is no image.
"""

import contextlib
from functools import wraps
from importlib.metadata import version
import os
from pathlib import Path
import signal
import sys
import threading
import warnings

from dipy.utils.logging import logger
from dipy.workflows.multi_io import IOIterator
from dipy.workflows.workflow import Workflow

from dipy_dl_reg.workflows.log import LogOptions

#: Errors of which a user is told in one line.
ERRORS = (ValueError, OSError, ImportError, MemoryError, RuntimeError)
#: How many file names a message holds.
_NAMED = 3


class _Planned(IOIterator):
    """DIPY's rules for inputs and output names, without making folders yet."""

    def create_directories(self):
        """Make no folder: they come with the files."""


class StrictWorkflow(Workflow):
    """A workflow that stops where DIPY's would go on.

    Attributes
    ----------
    log_options : LogOptions
        Options of the log; set by `run_command`.
    """

    log_options = LogOptions()

    def plan(self, inputs, out_dir, outputs, *, others=(), skip_existing=False):
        """Pair inputs with outputs by DIPY's rules, and check all before any work.

        Parameters
        ----------
        inputs : sequence
            For each input, a path, a pattern, or a list of them.
        out_dir : str or Path
            Folder of the outputs.
        outputs : dict
            File name of each output, by its parameter.
        others : sequence of str, Path or None, optional
            Further files that are read, and must not be written over.
        skip_existing : bool, optional
            Leave out, with a line of the log, each run all of whose outputs exist.

        Returns
        -------
        rows : list of tuple
            For each run that is left, the list of its inputs, and the dict of its
            outputs.

        Raises
        ------
        OSError
            If an input is missing, or an output exists or cannot be written.
        ValueError
            If inputs do not pair, or outputs collide.
        """
        if self._output_strategy not in ("absolute", "append", "prepend"):
            raise ValueError(
                "out_strat must be absolute, append or prepend, got "
                f"{self._output_strategy!r}"
            )
        planned = _Planned(
            output_strategy=self._output_strategy, mix_names=self._mix_names
        )
        planned.set_inputs(
            *([i] if isinstance(i, (str, Path)) else list(i) for i in inputs)
        )
        counts = {len(i) for i in planned.inputs}
        if len(counts - {1}) > 1:
            raise ValueError(
                "inputs must be as many on each side, or one on one side; got "
                + " and ".join(str(len(i)) for i in planned.inputs)
            )
        planned.set_out_dir(out_dir or ".")
        planned.set_out_fnames(*outputs.values())
        planned.create_outputs()
        self.flat_outputs = [path for row in planned.outputs for path in row]
        self.last_generated_outputs = dict(zip(outputs, self.flat_outputs))
        self._check_collisions([*planned.inputs, filter(None, others)])
        rows = [
            ([Path(i) for i in given], dict(zip(outputs, map(Path, made))))
            for *given, made in zip(*planned.inputs, planned.outputs)
        ]
        if skip_existing:
            rows = [row for row in rows if not _is_done(*row)]
            self.flat_outputs = [str(p) for _, made in rows for p in made.values()]
            if not rows:
                log_result("Nothing to do: all outputs exist")
        self.manage_output_overwrite()
        return rows

    def plan_one(self, out_dir, parameter, name, others=()):
        """Check the one output of a workflow that makes one of all its inputs.

        Parameters
        ----------
        out_dir : str or Path
            Its folder.
        parameter : str
            The output's parameter.
        name : str
            Its file's name.
        others : sequence of str, Path or None, optional
            Files that must not be written over.

        Returns
        -------
        path : Path
            Where it goes.

        Raises
        ------
        OSError
            If it exists or cannot be written.
        ValueError
            If it is one of the others.
        """
        path = Path(out_dir or ".") / name
        self.flat_outputs = [str(path)]
        self.last_generated_outputs = {parameter: str(path)}
        self._check_collisions([filter(None, others)])
        self.manage_output_overwrite()
        return path

    def _check_collisions(self, inputs):
        """Raise if a file would be written twice, or over an input."""
        made = [Path(path).resolve() for path in self.flat_outputs]
        twice = {path for path in made if made.count(path) > 1}
        if twice:
            raise ValueError(
                f"{len(made)} outputs share names ({sorted(twice)[0]}): add "
                "--mix_names, or give each its own --out_* name"
            )
        given = {Path(path).resolve() for paths in inputs for path in paths}
        for path in given.intersection(made):
            raise ValueError(f"{path} is an input, and would be overwritten")

    def manage_output_overwrite(self):
        """Raise unless every output can be written.

        Returns
        -------
        written : bool
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
                f"{name_some(there)} already there: add --force to overwrite"
            )
        for path in self.flat_outputs:
            check_writable(path, overwrite=self._force_overwrite)
        return True


def with_ending(name, endings, parameter):
    """Check a file's name.

    Parameters
    ----------
    name : str
        What the user gave.
    endings : tuple of str
        Those of its format.
    parameter : str
        What the error calls it.

    Returns
    -------
    name : str
        The same.

    Raises
    ------
    ValueError
        If it ends in none of them.
    """
    if not str(name).lower().endswith(endings):
        raise ValueError(f"{parameter} must end in {' or '.join(endings)}, got {name}")
    return name


def name_some(paths):
    """The first of some files, and how many more there are.

    Parameters
    ----------
    paths : sequence of str or Path
        The files.

    Returns
    -------
    text : str
        Such as "a, b, c and 27 more".
    """
    named = ", ".join(map(str, paths[:_NAMED]))
    more = len(paths) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def _is_done(given, made):
    """Whether all outputs of a run exist; logs it if so."""
    done = all(path.is_file() for path in made.values())
    if done:
        images = ", ".join(map(str, given))
        logger.info(f"Skipped {images}: {name_some(list(made.values()))} exist already")
    return done


def log_result(text):
    """Write the line of the log that a command ends with; --quiet shows it, too.

    Parameters
    ----------
    text : str
        What was done.
    """
    logger.info(text, extra={"result": True})


def run_command(flow):
    """Run a workflow from the command line: one line for an error, and exit code 1.

    Parameters
    ----------
    flow : Workflow
        What is run, with the options in `sys.argv`.
    """
    # Before torch loads: its waiting threads then sleep, and where other programs use
    # the same processors it is many times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from dipy.workflows.flow_runner import run_flow

    release = f"dipy_dl_reg {version('dipy_dl_reg')}"
    warnings.formatwarning = _one_line
    flow.log_options = options = LogOptions()
    _log_while_running(flow, options)
    try:
        with _signals_raise():
            run_flow(
                flow,
                extra_args={
                    "version": {"action": "version", "version": release},
                    **options.arguments(),
                },
            )
    except KeyboardInterrupt:
        sys.exit(f"{Path(sys.argv[0]).name}: interrupted")
    except ERRORS as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {_text(error)}")


def _log_while_running(flow, options):
    """Let a workflow's `run` log as the options of its command say."""
    run = flow.run

    @wraps(run)
    def logged(**arguments):
        with options.logging(arguments) as log:
            try:
                return run(**arguments)
            except ERRORS as error:
                log.write_error(_text(error))
                raise

    flow.run = logged


@contextlib.contextmanager
def _signals_raise():
    """Let SIGTERM and SIGHUP raise SystemExit, so that temporary files are removed."""

    def leave(number, frame):
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not interrupted
        raise SystemExit(128 + number)

    numbers = [getattr(signal, n, None) for n in ("SIGTERM", "SIGHUP")]
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in filter(None, numbers):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup sets another
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _text(error):
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _one_line(message, category, filename, lineno, line=None):
    """A warning as a user of a command wants it."""
    return f"WARNING: {' '.join(str(message).split())}\n"
