# docker build -f docker/tpu.Dockerfile -t xlkd-tpu .
# docker run --rm --privileged --net=host xlkd-tpu --config=configs/gxlt.py --workdir=gs://BUCKET/run
FROM python:3.12-slim
COPY . /opt/xlkd
RUN pip install --no-cache-dir '/opt/xlkd[tpu,gcs]'
WORKDIR /xlkd
ENTRYPOINT ["python", "-m", "xlkd.main"]
