"""Tracebacks and last lines of processes for the operator: cleaned like log lines, and bounded."""

from separations.logs.formatter import LineFormatter

MOST_CHARACTERS = 4096
_formatter = LineFormatter()


def cleaned_trace(text: str, most: int = MOST_CHARACTERS) -> str:
    """The end of `text`, at most `most` characters, without tokens, addresses and control
    characters; a line that is cut off begins with an ellipsis."""
    # Cut before, so that a long text costs little, and after, since cleaning may lengthen it.
    lines = text[-4 * most :].strip("\n").split("\n")
    whole = "\n".join(_formatter.cleaned(line) for line in lines)
    return whole if len(whole) <= most else "…" + whole[1 - most :]
