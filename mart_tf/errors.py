"""What is said of an error of another library."""


def first_line(error):
    """What it says first, at most 200 characters, without a full stop."""
    return str(error).strip().split("\n")[0][:200].rstrip(".")
