"""LangChain: the loader's parser of audio."""

from __future__ import annotations

import sys

# configure:
from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser

# pydub, which it cuts audio with, needs ffmpeg on the PATH.
parser = OpenAIWhisperParser(base_url=f"{sys.argv[1]}/v1", api_key="none")
# end

import imageio_ffmpeg
from langchain_core.documents.base import Blob
from pydub import AudioSegment

AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()

documents = parser.lazy_parse(Blob.from_path(sys.argv[2]))
print("file", " ".join(document.page_content for document in documents), sep="\t")
