# lidit-jax for TPUs (GKE, or a TPU VM). The build context is a commit:
#   git archive --format=tar.gz HEAD |
#     docker build --file=launch/docker/tpu.Dockerfile --tag=lidit:tpu -
# The README's two commands work in it, and install nothing that is there:
#   docker run --rm --entrypoint=bash lidit:tpu launch/quickstart.sh      or launch/test.sh
FROM python:3.12.12-slim-bookworm

RUN useradd --create-home --uid=1000 lidit \
 && install --directory --owner=lidit /home/lidit/lidit-jax
WORKDIR /home/lidit/lidit-jax
COPY --chown=1000 . .
USER 1000
# Any user number may run the image (docker run --user), with the same home folder.
ENV HOME=/home/lidit LIDIT_PLATFORM=tpu LIDIT_STORE=gcs \
    PATH=/home/lidit/lidit-jax/.venv/bin:$PATH
RUN PIP_NO_CACHE_DIR=1 bash launch/setup_worker.sh --platform=tpu \
 && mkdir -p /home/lidit/run /home/lidit/.cache/lidit
ENTRYPOINT ["lidit"]
CMD ["doctor"]
