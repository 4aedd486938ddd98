"""Documents of an archive merged into a collection by their `_id`."""

from tasks.database.merge_rule import MergeRule, Verdict, decide, structural_differences

__all__ = ["MergeRule", "Verdict", "decide", "structural_differences"]
