"""What is asked of a model: records of tasks, label words, metrics, and the loading of rows. Never imports torch.

task.py        the record, `Example`, label words for a run
catalog.py     the shipped records; `find_task`
custom.py      a user's own record from a YAML file
records.py     a task as JSON values, which prompts of own tasks keep
loading.py     three disjoint splits, from folder.py, hub.py or microworld/; rows.py checks each row
metrics.py     how answers are scored, and what is scored without a model
texts.py       words and sentences of texts in any script
errors.py      the user's mistakes and the machine's faults
"""

from tasks.catalog import TASKS, all_tasks, find_task
from tasks.errors import MachineError, UserError, unknown
from tasks.loading import Splits, load_splits
from tasks.metrics import METRICS, chance, score
from tasks.task import Example, HubSource, Task, check_name, parse_label_words, task_table, with_words

__all__ = [
    "METRICS",
    "TASKS",
    "Example",
    "HubSource",
    "MachineError",
    "Splits",
    "Task",
    "UserError",
    "all_tasks",
    "chance",
    "check_name",
    "find_task",
    "load_splits",
    "parse_label_words",
    "score",
    "task_table",
    "unknown",
    "with_words",
]
