"""LiteLLM: its library, and its proxy, which an OpenAI client calls."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "127.0.0.1"}

# configure:
import litellm

options = {"model": "openai/whisper-1", "api_base": f"{sys.argv[1]}/v1", "api_key": "none"}
# The proxy's configuration:
CONFIG = f"""
model_list:
  - model_name: whisper-1
    litellm_params: {{model: openai/whisper-1, api_base: "{sys.argv[1]}/v1", api_key: none}}
    model_info: {{mode: audio_transcription}}
"""
# end

import httpx
import openai

with open(sys.argv[2], "rb") as file:
    print("library", litellm.transcription(file=file, **options).text, sep="\t")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    config = Path(folder, "config.yaml")
    config.write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config), "--host", "127.0.0.1",
               "--port", str(port)]  # fmt: skip
    key = f"sk-{secrets.token_hex(32)}"
    proxy = subprocess.Popen(command, stdout=sys.stderr, env={**os.environ, "LITELLM_MASTER_KEY": key})
    try:
        while proxy.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/liveliness")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
        with open(sys.argv[2], "rb") as file:
            print("proxy", client.audio.transcriptions.create(model="whisper-1", file=file).text, sep="\t")
    finally:
        proxy.terminate()
        proxy.wait(20)
