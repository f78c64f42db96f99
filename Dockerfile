# syntax=docker/dockerfile:1
# Two images: `--target daemon` is slim and has no torch; `--target trainer` is what SageMaker runs on a GPU.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS daemon-build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md ./
COPY retrainer retrainer
RUN python -m venv /opt/retrainer \
    && /opt/retrainer/bin/pip install --no-cache-dir --upgrade -c constraints.txt pip \
    && mkdir trainer \
    && /opt/retrainer/bin/pip install --no-cache-dir -c constraints.txt ".[postgres]"

FROM ${PYTHON_IMAGE} AS daemon
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin retrainer && install -d -o retrainer /var/lib/retrainer
COPY --from=daemon-build /opt/retrainer /opt/retrainer
COPY policies /etc/retrainer/policies
ENV PATH=/opt/retrainer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    RETRAINER_POLICIES=/etc/retrainer/policies \
    RETRAINER_LEDGER=sqlite:////var/lib/retrainer/ledger.db
USER 10001
WORKDIR /var/lib/retrainer
VOLUME /var/lib/retrainer
EXPOSE 8321
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8321/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["retrainer"]
CMD ["run"]

# PyPI's torch wheel for Linux is the CUDA build; the CUDA image gives the driver's user libraries.
FROM ${CUDA_IMAGE} AS trainer
ARG PYTHON=python3
RUN apt-get update \
    && apt-get install --no-install-recommends -y ${PYTHON} ${PYTHON}-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/program
COPY constraints.txt ./
RUN ${PYTHON} -m venv /opt/trainer \
    && /opt/trainer/bin/pip install --no-cache-dir -c constraints.txt torch numpy pyarrow safetensors boto3
COPY trainer trainer
COPY deploy/steps steps
ENV PATH=/opt/trainer/bin:$PATH PYTHONPATH=/opt/program PYTHONUNBUFFERED=1
# SageMaker runs a training container as root and mounts /opt/ml; it appends `train` or `serve`.
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["train"]
