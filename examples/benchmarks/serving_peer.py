"""The same model behind plain transformers and FastAPI: `python serving_peer.py MODEL PORT`.

What a careful user writes: one pipeline, a `def` handler that FastAPI runs in its threads, the
upload decoded by soundfile.
"""

import sys
from typing import Any

import soundfile
import uvicorn
from fastapi import FastAPI, UploadFile

from emoser.bench.worker import load_engine

app = FastAPI()
classify = load_engine({"runtime": "transformers", "model": sys.argv[1]}).model


@app.post("/v1/predict")
def predict(file: UploadFile) -> Any:
    samples, rate = soundfile.read(file.file, dtype="float32")
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return classify({"raw": mono, "sampling_rate": rate})


@app.get("/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
