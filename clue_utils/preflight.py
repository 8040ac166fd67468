"""What is checked of a run before PaddlePaddle is loaded, which takes its time: rather refused at once.

Whoever loads what is checked here checks it all the same. Imports no PaddlePaddle.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from clue_utils import environment, model_names, ranks
from clue_utils.cli import configure_logging
from clue_utils.data.examples import require_given
from clue_utils.published import PUBLISHED_MODELS
from clue_utils.record import Run, require_trained_for
from clue_utils.settings import Settings
from clue_utils.tasks import Task


def start(args: Settings, task: Task) -> None:
    """Begin a run's log, check what can be, and load the libraries; what needs them follows in ``device.start``.

    Raises:
        UserError: model, data, device or output folder are not what they have to be.
    """
    configure_logging(args.log_level, on_stderr=args.answers_on_stdout)
    args.log(task, ranks.world_size())
    _check(args, task)
    if args.export_onnx:
        environment.require_paddle2onnx()
    environment.load_libraries(args.device)


def _check(args: Settings, task: Task) -> None:
    environment.require_device(args.device)
    model_names.require_possible(args.model_name_or_path, [model.name for model in PUBLISHED_MODELS])
    for folder in args.ensemble:
        model_names.require_member(folder)
    for name in (args.model_name_or_path, *args.ensemble):
        if os.path.isdir(name) and not model_names.is_name(name):  # else the model of that name may be meant
            model_names.config_file(Path(name))
        if not args.do_train:
            require_trained_for(name, task)
    is_trained = False
    if args.makes_a_run():
        _require_place(Path(args.output_dir))
        is_trained = Run(task.name, task.metric, args, device="").is_trained  # refuses a folder of another run
    splits = ["train"] if args.do_train and not is_trained else []
    splits += ["dev"] if args.do_train or args.do_eval else []
    splits += task.test_splits if args.do_predict else ()
    require_given(task, splits, args.data_dir)


def _require_place(folder: Path) -> None:
    """See that a folder is there, or can be made as far as names go."""
    place = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
