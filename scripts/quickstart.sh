#!/usr/bin/env bash
# One command from a bare machine with Python to zipped predictions: sets up the environment, makes demo data and a
# tiny demo model, then trains, evaluates and predicts every task on them. After the set-up nothing needs a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -eq 0 ] || {
  echo "error: quickstart.sh takes no arguments: bash scripts/quickstart.sh" >&2
  exit 2
}

AT_ONCE=2 # tasks side by side, one thread each
OUTPUT=demo/output
PYTHON_OF_VENV=.venv/bin/python
export OUTPUT PYTHON_OF_VENV

bash scripts/setup_env.sh

SECONDS=0
echo
echo "Making the demo model and data"
"$PYTHON_OF_VENV" scripts/make_demo.py --output demo
mkdir -p "$OUTPUT"

# A line for each task whose script is there: number, how many, name, script, flags that only this script takes.
list_tasks() {
  "$PYTHON_OF_VENV" - <<'END'
import sys
from pathlib import Path

sys.path.append("scripts")
from make_demo import training_flags

from clue_utils.tasks import TASKS

tasks = [task for task in TASKS.values() if Path(task.script).is_file()]
for number, task in enumerate(tasks, 1):
    flags = ["--task_name", task.name] if task.kind == "classification" else []
    print(number, len(tasks), task.name, task.script, *flags, *training_flags(task))
END
}

run_task() { # NUMBER COUNT TASK SCRIPT [FLAG...]
  local place="[$1/$2] $3" folder="$OUTPUT/$3" begin="$SECONDS"
  rm -f "$folder.seconds"
  echo "$place: train, evaluate, predict"
  if OMP_NUM_THREADS=1 "$PYTHON_OF_VENV" "$4" "${@:5}" --model_name_or_path demo/model --data_dir demo/data \
    --output_dir "$folder" --overwrite_output_dir --device cpu --do_train --do_eval --do_predict \
    >"$folder.log" 2>&1; then
    echo "$((SECONDS - begin))" >"$folder.seconds"
    # One echo, so that two tasks that end together do not mix their lines.
    echo "$place: $("$PYTHON_OF_VENV" -c 'import json, sys
result = json.load(open(sys.argv[1], encoding="utf-8"))
print(result["metric"], format(result["best_metric"], ".2f"))' "$folder/result.json"), $(cat "$folder.seconds") s"
  else
    status=$?
    ((status > 128)) || { echo "$place failed; the end of $folder.log:"; tail -n 20 "$folder.log"; } >&2
    return 1
  fi
}
export -f run_task

trap 'echo "interrupted: bash scripts/quickstart.sh begins again" >&2; exit 130' INT
# 255 makes xargs start no further task.
list_tasks | xargs -P "$AT_ONCE" -L 1 bash -c 'run_task "$@" || exit 255' run_task || exit 1

echo
"$PYTHON_OF_VENV" scripts/zip_predictions.py "$OUTPUT"/*/ --output demo/submit.zip >"$OUTPUT/zip.log" 2>&1 || {
  cat "$OUTPUT/zip.log" >&2
  exit 1
}
tail -n 1 "$OUTPUT/zip.log"
echo
"$PYTHON_OF_VENV" - <<'END'
import json, os
from pathlib import Path

from clue_utils.tasks import TASKS

print(f"{'task':<13}{'metric':<10}{'score':>5}{'seconds':>9}  predictions")
for task in TASKS.values():
    folder = Path(os.environ["OUTPUT"], task.name)
    if Path(task.script).is_file():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        seconds = folder.with_name(task.name + ".seconds").read_text().strip()
        files = " ".join(name for name in task.submissions.values() if (folder / name).is_file())
        print(f"{task.name:<13}{result['metric']:<10}{result['best_metric']:>5.2f}{seconds:>9}  {files}")
END
cat <<END

Made in $SECONDS s, all in demo/: the checkpoints and predictions in output/<task>/, the logs in output/<task>.log,
the predictions zipped for the leaderboard in submit.zip. The data is made up, so the scores say only that it works.

What to type next:
  TNEWS, for real     .venv/bin/python classification/run_clue_classifier.py --model_name_or_path ernie-3.0-base-zh \\
                        --task_name TNEWS --output_dir tnews --do_train --do_eval --do_predict
  run the tests       bash scripts/test.sh
  read on             less README.md
END
