"""The digest of rows: every field counts, and the value that names of finished cells hold stays."""

import hashlib
from dataclasses import fields, replace

from tasks.rows import digest_rows
from tasks.task import Example

ROW = Example("it rains", "the ground is wet", 1, ("yes", "wet"))


def test_the_digest_is_over_all_fields_in_order():
    text = "1 rows\n('it rains', 'the ground is wet', 1, ('yes', 'wet'))0 rows\n"
    assert digest_rows(((ROW,), ())) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_field_order_and_split_changes_it():
    others = {
        "first": "it snows",
        "second": "nobody is here",
        "label": 0,
        "references": ("yes",),
        "value": 0.5,
        "labels": (1,),
    }
    assert set(others) == {field.name for field in fields(Example)}
    rows = [(ROW,), *[(replace(ROW, **{name: value}),) for name, value in others.items()]]
    found = {digest_rows(((one,), (two,))) for (one,) in rows for (two,) in rows}
    assert len(found) == len(rows) ** 2
    assert digest_rows(((ROW, ROW), ())) != digest_rows(((ROW,), (ROW,)))
