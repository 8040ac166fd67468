# The project on the CPU; docs/install_en.md says how the image is made and used.
FROM python:3.12-slim-bookworm AS wheel
ARG PIP_INDEX_URL
COPY . /project
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /project

FROM python:3.12-slim-bookworm
ARG PIP_INDEX_URL
# What PaddlePaddle links to, and what runs the trials of a search.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes libgomp1 parallel \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /locks/
# The locked pip first, which knows --build-constraint; --no-deps: see requirements-override.in.
RUN pip install --no-cache-dir --upgrade --constraint /locks/requirements.txt pip setuptools \
    && pip install --no-cache-dir --no-deps --build-constraint /locks/requirements.txt \
        --requirement /locks/requirements.txt
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --no-deps /wheel/*.whl

# For any user: docker run --user "$(id -u):$(id -g)". Models, data and features are kept in /cache.
ENV HOME=/cache USER=clue CLUE_CACHE_DIR=/cache/clue_benchmark
RUN install --directory --mode 1777 /cache /runs
WORKDIR /runs
ENTRYPOINT ["clue"]
CMD ["--help"]
