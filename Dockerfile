# A submission: the toolkit's inference without torch, and one exported model.
#
#   repmedsam export --encoder ENCODER --weights WEIGHTS -o model
#   docker build -t repmedsam .
#   docker run -m 8G --rm -v $PWD/inputs:/workspace/inputs -v $PWD/outputs:/workspace/outputs repmedsam
FROM python:3.12-slim

WORKDIR /workspace
COPY requirements-predict.txt ./
RUN pip install --no-cache-dir -r requirements-predict.txt
COPY setup.cfg pyproject.toml README.md LICENSE cli.py ./source/
COPY zoo ./source/zoo
COPY bench ./source/bench
COPY compress ./source/compress
COPY reports ./source/reports
COPY ckpts ./source/ckpts
RUN pip install --no-cache-dir --no-deps ./source && rm -rf source \
    && python -m compileall -q /usr/local/lib/python3.12/site-packages
COPY predict.sh ./
COPY model ./model

CMD ["sh", "predict.sh"]
