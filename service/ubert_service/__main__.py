"""``ubert-serve``, which decides what signals do before it imports the rest: that takes a second."""

from ubert_service import signals


def main() -> None:
    """Entry point."""
    signals.hold_hangup()
    from ubert_service.commands import serve  # noqa: PLC0415

    signals.exit_cleanly()
    serve.main()


if __name__ == "__main__":
    main()
