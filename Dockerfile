# syntax=docker/dockerfile:1
# Two images: `--target daemon` is slim and has no torch; `--target trainer` is what SageMaker runs on a GPU.
# A private package index: `docker build --secret id=pip.conf,src=$HOME/.config/pip/pip.conf ...`.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# Of the CUDA that PyPI's torch 2.13 was built for. Its wheels bring cuBLAS, cuDNN and NCCL with them, so `base` is enough:
# what it adds are the variables that make the runtime give the container the GPU, and cuda-compat for older drivers.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${PYTHON_IMAGE} AS daemon-build
WORKDIR /src
COPY constraints.txt pyproject.toml ./
# The dependencies alone, so that a change of our code does not install them again; pip itself stays behind in this stage.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    touch README.md \
    && python -m venv /opt/pip \
    && /opt/pip/bin/pip install --no-cache-dir --upgrade -c constraints.txt pip \
    && python -m venv --without-pip /opt/retrainer \
    && /opt/pip/bin/pip --python /opt/retrainer install --no-cache-dir -c constraints.txt \
        --build-constraint constraints.txt --only-deps ".[postgres]" \
    # The tests of numpy, pandas, scipy and their like: an eighth of the image. What Evidently calls tests is its library.
    && find /opt/retrainer -path '*/evidently' -prune -o -type d -name tests -prune -exec rm -r {} +
COPY README.md ./
COPY retrainer retrainer
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/retrainer install --no-cache-dir --build-constraint constraints.txt --no-deps .

FROM ${PYTHON_IMAGE} AS daemon
RUN useradd --uid 10001 --home-dir /var/lib/retrainer --shell /usr/sbin/nologin retrainer \
    && install -d -o retrainer -g retrainer /var/lib/retrainer
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
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('RETRAINER_HTTP_PORT', '8321') + '/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["retrainer"]
CMD ["run"]

FROM ${CUDA_IMAGE} AS trainer
ARG PYTHON=python3
# torch.compile has Triton build its launchers when training starts: that takes a C compiler and Python's headers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y ${PYTHON} ${PYTHON}-venv ${PYTHON}-dev gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/program
COPY constraints.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    ${PYTHON} -m venv /opt/trainer \
    && /opt/trainer/bin/pip install --no-cache-dir -c constraints.txt torch numpy pillow pyarrow safetensors boto3
COPY trainer trainer
COPY deploy/steps steps
ENV PATH=/opt/trainer/bin:$PATH PYTHONPATH=/opt/program PYTHONUNBUFFERED=1
# Written into every model's manifest: --build-arg GIT_REVISION=$(git rev-parse HEAD).
ARG GIT_REVISION=unknown
ENV GIT_REVISION=${GIT_REVISION}
# SageMaker runs a training container as root and mounts /opt/ml; it appends `train` or `serve`.
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["train"]
