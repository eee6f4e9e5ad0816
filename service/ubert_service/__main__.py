"""``python -m ubert_service``, which is ``ubert-serve``."""

from ubert_service.entry import serve

if __name__ == "__main__":
    serve()
