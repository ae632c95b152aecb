"""The clients that are tried: what is installed of each, at which versions, and the script that runs it as users do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
UNTIL = "2026-11-26"  # what was published later is not installed, so that two runs install the same


@dataclass(frozen=True, slots=True)
class Client:
    """A client. packages: the first is the client; its version is pinned, as that of all others by `UNTIL`.

    script: under python/ or node/; it prints a line for each way to call, with a tab before the text that came back.
    python: the least version of Python, if it is not that of this project. note: what users have to know.
    """

    name: str
    packages: tuple[str, ...]
    script: str
    python: str = "3.11"
    note: str = ""

    @property
    def path(self) -> Path:
        return HERE / self.script

    @property
    def is_python(self) -> bool:
        return self.path.suffix == ".py"

    @property
    def version(self) -> str:
        return self.packages[0].rpartition("==" if self.is_python else "@")[2]

    def configuration(self) -> str:
        """The lines of the script that configure the client."""
        source = self.path.read_text()
        mark = "#" if self.is_python else "//"
        return source.split(f"{mark} configure:\n")[1].split(f"{mark} end\n")[0].strip()


CLIENTS = (
    Client("openai (Python)", ("openai[realtime]==3.57.0",), "python/openai_python.py"),
    Client(
        "openai (Node)", ("openai@7.57.0", "ws@8.23.0"), "node/openai-node.mjs",
        note="Its realtime client always speaks TLS. Put a proxy with a certificate before the service "
        "([one machine](compose.md)), or give it a plain connection as below.",
    ),
    Client("AI SDK 6", ("ai@6.0.326", "@ai-sdk/openai@3.0.141"), "node/ai-sdk-6.mjs"),
    Client("AI SDK 7", ("ai@7.0.173", "@ai-sdk/openai@4.0.118", "ws@8.23.0"), "node/ai-sdk-7.mjs"),
    Client(
        "LiveKit Agents", ("livekit-plugins-openai==1.8.9", "livekit-agents==1.8.9"), "python/livekit_agents.py",
        note="`gpt-live-transcribe` and `gpt-realtime-whisper` stand for turns that LiveKit's own detector ends; other "
        "names, with `use_realtime=True`, for turns that the service ends.",
    ),
    Client(
        "Pipecat", ("pipecat-ai[openai]==1.14.0",), "python/pipecat_ai.py",
        note="The realtime service takes the socket's whole address. By default a detector in the pipeline ends turns.",
    ),
    Client("OpenAI Agents SDK", ("openai-agents[voice]==0.24.0",), "python/openai_agents.py"),
    Client(
        "wyoming-openai", ("wyoming-openai==0.8.0",), "python/wyoming_bridge.py", python="3.12",
        note="The bridge to Home Assistant's Assist.",
    ),
    Client("LiteLLM, its library and its proxy", ("litellm[proxy]==1.108.7",), "python/litellm_sdk.py"),
    Client(
        "LangChain", ("langchain-community==0.4.2", "openai==3.57.0", "pydub==0.25.1", "imageio-ffmpeg==0.8.1"),
        "python/langchain_parser.py",
    ),
)  # fmt: skip
CURL = "curl -s $URL/v1/audio/transcriptions -F model=whisper-1 -F response_format=text -F file=@speech.wav"
