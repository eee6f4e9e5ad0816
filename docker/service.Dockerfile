# The online side: ONNX Runtime, without torch. Build from the repository's root:
#   docker build -f docker/service.Dockerfile -t u-bert-service .

# To pin the exact base image, append its digest in both places: …-bookworm@sha256:…
FROM python:3.11-slim-bookworm AS build

# pip reads these from its environment, so that other package indexes need no change here.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
# cpu, or cuda: with the CUDA and cuDNN libraries that ONNX Runtime loads, some 3 GB.
ARG ACCELERATOR=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
RUN python -m venv --without-pip /opt/ubert
COPY pyproject.toml docker/constraints.txt ./
# Installs the dependencies alone, without any sources: a layer that stays cached when only code changes.
RUN touch README.md && pip --python /opt/ubert install -c constraints.txt ".[serve]"
# On a CPU, ONNX Runtime's CUDA kernels are not needed, and they are most of its size.
RUN case "$ACCELERATOR" in \
      cpu) find /opt/ubert -name 'libonnxruntime_providers_cuda.so' -delete ;; \
      cuda) pip --python /opt/ubert install -c constraints.txt "onnxruntime-gpu[cuda,cudnn]" ;; \
      *) echo "ACCELERATOR=$ACCELERATOR: use cpu or cuda" >&2; exit 1 ;; \
    esac
COPY README.md ./
# Without training/, which needs torch.
COPY model model
COPY service service
RUN pip --python /opt/ubert install --no-deps --force-reinstall . && rm /opt/ubert/bin/ubert


FROM python:3.11-slim-bookworm

# The same user and group ids as in the training image, which writes the volume that this one reads.
RUN groupadd --gid 10001 ubert && useradd --uid 10001 --gid ubert --no-create-home --home-dir /nonexistent ubert
COPY --from=build /opt/ubert /opt/ubert
COPY docker/healthcheck.py /opt/ubert/

# ONNX Runtime's telemetry is on by default, from the moment it is imported.
ENV PATH=/opt/ubert/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    UBERT_BUNDLE=/data/bundle \
    UBERT_HOST=0.0.0.0 \
    UBERT_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 CMD ["python", "/opt/ubert/healthcheck.py"]
# Exec form, so that the service itself receives SIGTERM and finishes running requests.
ENTRYPOINT ["ubert-serve"]
