# docker build -f docker/cpu.Dockerfile -t xlkd .
# docker run --rm -v "$PWD/runs:/work/runs" xlkd --config=configs/gxlt.py
FROM python:3.12-slim
COPY . /opt/xlkd
RUN pip install --no-cache-dir /opt/xlkd
WORKDIR /work
ENTRYPOINT ["python", "-m", "xlkd.main"]
