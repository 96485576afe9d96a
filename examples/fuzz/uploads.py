"""`emoser serve` with a client that sends it recordings and then ends it.

    python examples/fuzz/uploads.py MODEL RECORDING

starts the service with the model. The client, a process of its own, sends the recording several
times, as a body and as a form. If all answers are equal, it stops the service with SIGTERM, else
it kills it. It ends when the service does.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

NUM_UPLOADS = 6
FORM = "multipart/form-data; boundary=part"


def main() -> None:
    """Start the client, and become the service."""
    if sys.argv[1] == "client":
        send_uploads(*sys.argv[2:])
        return
    model, recording = sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    client = ("client", f"http://127.0.0.1:{port}", recording, str(os.getpid()))
    subprocess.Popen([sys.executable, __file__, *client])
    words = ("serve", "--model", model, "--backend", "torch", "--device", "cpu", "--port", port)
    os.execv(sys.executable, (sys.executable, "-m", "emoser", *words))


def send_uploads(address: str, recording: str, server: str) -> None:
    """Send a recording to a service, and end the service."""
    body = Path(recording).read_bytes()
    head = b'--part\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    form = head + body + b"\r\n--part--\r\n"
    kinds = ((body, "application/octet-stream"), (form, FORM))
    answers = []
    while os.getppid() == int(server) and len(answers) < NUM_UPLOADS:
        data, kind = kinds[len(answers) % 2]
        request = urllib.request.Request(f"{address}/v1/predict", data, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answers.append(json.load(answer)["scores"])
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)  # not yet started, or killed
    if os.getppid() == int(server):
        good = all(scores == answers[0] for scores in answers)
        os.kill(int(server), signal.SIGTERM if good else signal.SIGKILL)


if __name__ == "__main__":
    main()
