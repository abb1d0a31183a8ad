"""The harness of the book: claims, evidence, verdicts, chapter context, execution and reports."""

from companion.chapter import Chapter
from companion.criteria import no_value
from companion.paths import ProjectError

__all__ = ["Chapter", "ProjectError", "no_value"]
