# jaxsr on CPUs. Build and run:
#   docker build -t jaxsr .
#   docker run --rm -v "$PWD:/data" jaxsr upscale image.png
FROM python:3.12-slim

COPY . /tmp/jaxsr
RUN pip install --no-cache-dir '/tmp/jaxsr[dicom]' && rm -r /tmp/jaxsr

WORKDIR /data
ENTRYPOINT ["jaxsr"]
CMD ["--help"]
