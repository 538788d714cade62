# oodray on GPUs: the image for every node of a cluster, the head included.
#
#   docker build -t REGISTRY/oodray:0.1.0 .
#
# Ray and Python come with the base; Ray must be the version in constraints.txt, on every node and in rayjob.yaml.
ARG RAY_VERSION=2.60.0
FROM rayproject/ray:${RAY_VERSION}-py311-cu128

# The base image runs as this user, who may not write outside of its home folder.
USER ray
WORKDIR /home/ray/oodray

# What changes seldom comes first: the packages, several gigabytes, stay a layer of their own while the code changes.
# PyPI's torch is built for CUDA 13, as cuML is, and both bring their own CUDA: that of the base image is not used. The
# machine's driver must be one for CUDA 13 (580 or newer).
COPY --chown=ray constraints-gpu.txt ./
RUN pip install --no-cache-dir --constraint constraints-gpu.txt torch==2.13.0
COPY --chown=ray pyproject.toml README.md LICENSE ./
# The dependencies of the package alone, from an empty one of the same name. OpenCV comes without its windows, which want
# a system library that servers lack.
RUN mkdir oodray && touch oodray/__init__.py && mkdir configs \
    && pip install --no-cache-dir --constraint constraints-gpu.txt '.[cuml,hf,triton]' \
    && pip uninstall --yes oodray && rm -rf oodray configs \
    && pip uninstall --yes opencv-python && pip install --no-cache-dir --no-deps opencv-python-headless==5.0.0.93

COPY --chown=ray configs ./configs
COPY --chown=ray oodray ./oodray
RUN pip install --no-cache-dir --no-deps .

# Weights that `oodray models fetch` or Hugging Face download; mount a shared volume here.
ENV OODRAY_CACHE=/home/ray/cache HF_HOME=/home/ray/cache/huggingface RAY_USAGE_STATS_ENABLED=0
WORKDIR /home/ray

# Exit code 1 if a package is missing or broken. A machine without a GPU passes: the head has none.
RUN oodray doctor
HEALTHCHECK --interval=5m --timeout=60s CMD ["oodray", "doctor"]
