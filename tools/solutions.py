"""The lesson for teachers: the notebook with our answers, and a rubric.
`python -m tools.lesson --solutions FILE` makes both, so that neither is kept beside the notebook."""

import inspect
import json
from pathlib import Path

from support.errors import InputError
from support.files import read_text, write_file
from tools import answers
from tools.exercises import EXERCISES

HIDDEN = '''def check(name, answer):
    print(f"{name}: checked when it is handed in")
    return 0


def beside(name, answer, *inputs):
    return answer(*inputs), "shown when it is marked"


### BEGIN HIDDEN TESTS
from tools.exercises import beside, grade as check
### END HIDDEN TESTS
'''
CHECKS = "from tools.exercises import beside, check"  # the cell of the notebook that it replaces
RUBRIC = """# The exercises of the lesson: points and mistakes

An answer that its check passes earns all points. The check says which mistake an answer makes, under the
names below. Half the points are fair for an answer with one of these mistakes and a right idea.
"""


def write_solutions(lesson: Path, file: Path, hidden: bool):
    """Writes the lesson with our answers in nbgrader's form, and the rubric beside it, as FILE.md.
    With `hidden`, the checks stand in a part that nbgrader takes out of the copy for students."""
    if file.suffix != ".ipynb":
        raise InputError(f"--solutions {file}: a notebook ends in .ipynb")
    rubric_file = file.with_suffix(".md")
    for path in (file, rubric_file):
        if path.exists():
            raise InputError(f"--solutions {file}: {path} exists; choose another name, or move it away")
    notebook = json.loads(read_text(lesson))
    for cell in notebook["cells"]:
        source, marks = "".join(cell["source"]), cell["metadata"].get("nbgrader", {})
        if marks.get("solution"):
            cell["source"] = solved(source, marks["grade_id"])
        elif hidden and source == CHECKS:
            cell["source"] = HIDDEN
            cell["metadata"]["nbgrader"] = {
                "grade": True, "grade_id": "checks", "locked": True, "points": 0, "schema_version": 3,
                "solution": False, "task": False,
            }  # fmt: skip
    write_file(file, json.dumps(notebook, ensure_ascii=False, indent=1).encode() + b"\n")
    write_file(rubric_file, rubric().encode())
    print(f"{file}: {len(EXERCISES)} answers; {rubric_file}: points and mistakes")


def solved(stub: str, name: str) -> str:
    """A stub with our answer in it, between the marks by which nbgrader takes it out again."""
    signature = stub.split("\n")[0]
    lines = inspect.getsource(getattr(answers, name)).rstrip().split("\n")[1:]
    return "\n".join([signature, "    ### BEGIN SOLUTION", *lines, "    ### END SOLUTION"])


def rubric() -> str:
    """Each exercise with its points, our answer, and the mistakes that its check names."""
    parts = [RUBRIC]
    for name, exercise in EXERCISES.items():
        parts.append(f"## {name}, {exercise.points} point{'s' * (exercise.points > 1)}\n")
        parts.append(f"```python\n{inspect.getsource(getattr(answers, name)).rstrip()}\n```\n")
        parts.append("\n".join(f"- {mistake}" for mistake in exercise.wrong) + "\n")
    total = sum(exercise.points for exercise in EXERCISES.values())
    return "\n".join(parts) + f"\nAll exercises together: {total} points.\n"
