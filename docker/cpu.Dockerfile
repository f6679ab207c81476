# docker build -f docker/cpu.Dockerfile -t xlkd .
# docker run --rm -v "$PWD/runs:/xlkd/runs" xlkd --config=configs/gxlt.py
FROM python:3.12-slim
COPY . /opt/xlkd
RUN pip install --no-cache-dir /opt/xlkd
WORKDIR /xlkd
ENTRYPOINT ["python", "-m", "xlkd.main"]
