"""The harness of the book: claims, evidence, verdicts, chapter context, execution and reports."""

from typing import TYPE_CHECKING, Any

from companion.paths import ProjectError

if TYPE_CHECKING:
    from companion.chapter import Chapter
    from companion.criteria import no_value

__all__ = ["Chapter", "ProjectError", "no_value"]


def __getattr__(name: str) -> Any:
    """Load what only chapters need, matplotlib and scipy with it, when a chapter asks for it."""
    if name == "Chapter":
        from companion.chapter import Chapter

        return Chapter
    if name == "no_value":
        from companion.criteria import no_value

        return no_value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
