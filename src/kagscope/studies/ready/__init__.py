"""Studies that come with kagscope, for `kagscope study run NAME`."""

from importlib import resources


def ready_names() -> list[str]:
    """Names of the studies that come with kagscope."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in resources.files(__name__).iterdir() if entry.name.endswith(".toml")
    )
