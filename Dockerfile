# One image for the three servers. BASE needs Python 3.11 or later with venv, CA certificates and libstdc++ (for RE2).
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/kube-stepup
COPY requirements/runtime.txt /tmp/runtime.txt
# Wheels only, each with its hash: nothing that is downloaded is run.
RUN /opt/kube-stepup/bin/pip install --only-binary :all: --require-hashes --requirement /tmp/runtime.txt \
 && /opt/kube-stepup/bin/pip uninstall --yes pip setuptools
COPY LICENSE /opt/kube-stepup/LICENSE
COPY webhook /opt/kube-stepup/app/webhook
# Compiled once, since the file system is read-only when it runs.
RUN /opt/kube-stepup/bin/python -m compileall -q /opt/kube-stepup/lib /opt/kube-stepup/app

FROM ${BASE}
COPY --from=build /opt/kube-stepup /opt/kube-stepup
ENV PATH=/opt/kube-stepup/bin:$PATH \
    PYTHONPATH=/opt/kube-stepup/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A base that lacks a library is found out here, not when a pod starts.
RUN python -c "import webhook.admission.server, webhook.controller.server, webhook.elevation.server"
# A number, so that runAsNonRoot can be checked. The group may read nothing more.
USER 65532:65532
WORKDIR /opt/kube-stepup/app
EXPOSE 8443 8444
ENTRYPOINT ["python", "-m", "webhook"]
CMD ["--help"]
