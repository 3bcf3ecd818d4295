# Operator and runner: the wheel and what it needs, no torch. `docker build .`
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY operator /src/operator
COPY verifier-image/kernelverify_api /src/verifier-image/kernelverify_api
COPY verifier-image/kernelverify /src/verifier-image/kernelverify
# Versions as tested; kopf asks for the name of its user, so there must be one. The Kubernetes client's models are
# imported one by one and by us hardly ever: without their bytecode the image is a third smaller.
RUN grep -oE '^[A-Za-z0-9_.-]+==[^ ;\\]+' /src/constraints.txt > /src/pins.txt \
 && pip install --no-cache-dir --no-compile --constraint /src/pins.txt '/src[operator]' \
 && python3 -m compileall -q -x '/kubernetes/(aio/)?client/(api|models)/' \
      "$(cd / && python3 -c 'import kernelsearch; print(kernelsearch.__path__[0])')/.." \
 && rm -rf /src \
 && echo 'kernelsearch:x:65532:65532:kernelsearch:/tmp:/usr/sbin/nologin' >> /etc/passwd
COPY examples/replay /usr/share/kernelsearch/replay
USER 65532:65532
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["kernelsearch"]
