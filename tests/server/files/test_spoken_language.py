"""Which language a text is in: known for sentences, not known for what could be any language."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from parakeet_stt.engines.catalogue import CATALOGUE
from parakeet_stt.server.files.spoken_language import LanguageDetector
from tests.conftest import ROOT, Sample, Server

LANGUAGES = CATALOGUE["nvidia/parakeet-tdt-0.6b-v3"].languages
SAID = {
    "en": "The weather is nice today. I will come tomorrow morning with my brother.",
    "es": "El tiempo es bueno hoy. Mañana por la mañana vendré con mi hermano.",
    "fr": "Il fait beau aujourd'hui. Je viendrai demain matin avec mon frère.",
    "de": "Das Wetter ist heute schön. Ich komme morgen früh mit meinem Bruder.",
    "bg": "Времето днес е хубаво. Ще дойда утре сутринта с брат ми.",
    "hr": "Vrijeme je danas lijepo. Doći ću sutra ujutro s bratom.",
    "cs": "Dnes je hezké počasí. Přijdu zítra ráno s bratrem.",
    "da": "Vejret er dejligt i dag. Jeg kommer i morgen tidlig med min bror.",
    "nl": "Het weer is vandaag mooi. Ik kom morgenochtend met mijn broer.",
    "et": "Ilm on täna ilus. Ma tulen homme hommikul oma vennaga.",
    "fi": "Sää on tänään kaunis. Tulen huomenna aamulla veljeni kanssa.",
    "el": "Ο καιρός είναι καλός σήμερα. Θα έρθω αύριο το πρωί με τον αδερφό μου.",
    "hu": "Ma szép az idő. Holnap reggel jövök a testvéremmel.",
    "it": "Oggi il tempo è bello. Verrò domani mattina con mio fratello.",
    "lv": "Šodien ir jauks laiks. Es nākšu rīt no rīta ar brāli.",
    "lt": "Šiandien gražus oras. Ateisiu rytoj ryte su broliu.",
    "mt": "It-temp illum huwa sabiħ. Niġi għada filgħodu ma' ħija.",
    "pl": "Dzisiaj jest ładna pogoda. Przyjdę jutro rano z bratem.",
    "pt": "O tempo está bom hoje. Virei amanhã de manhã com o meu irmão.",
    "ro": "Vremea este frumoasă astăzi. Voi veni mâine dimineață cu fratele meu.",
    "sk": "Dnes je pekné počasie. Prídem zajtra ráno s bratom.",
    "sl": "Danes je lepo vreme. Prišel bom jutri zjutraj z bratom.",
    "sv": "Vädret är fint idag. Jag kommer imorgon bitti med min bror.",
    "ru": "Сегодня хорошая погода. Я приду завтра утром с братом.",
    "uk": "Сьогодні гарна погода. Я прийду завтра вранці з братом.",
}


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector(LANGUAGES)


def test_each_of_the_25_is_known_by_two_sentences(detector: LanguageDetector) -> None:
    assert {language: detector.detect(text) for language, text in SAID.items()} == dict(zip(SAID, SAID, strict=True))
    assert set(SAID) == set(LANGUAGES)


@pytest.mark.parametrize("text", ["", "No.", "Da.", "Ja.", "Berlin.", "1 2 3", "…"])
def test_what_could_be_any_language_is_not_guessed(detector: LanguageDetector, text: str) -> None:
    assert detector.detect(text) is None


def test_a_language_that_the_model_does_not_know_is_never_told() -> None:
    assert LanguageDetector(("en", "de")).detect(SAID["nl"]) in ("en", "de", None)


def test_of_a_model_of_several_languages_the_text_tells_which_unless_the_caller_does(
    exposed: Server, samples: dict[str, Sample]
) -> None:
    """It was said to be the model's first language, whatever was spoken."""

    def ask(**fields: str) -> httpx.Response:
        files = {"file": samples["short"].path.read_bytes()}
        data = {"model": "gpt-4o-transcribe", **fields}
        return httpx.post(f"{exposed.openai_url}/audio/transcriptions", data=data, files=files, timeout=60)

    def json_of(**fields: str) -> Any:
        return ask(**fields).json()

    assert json_of(response_format="verbose_json")["language"] == "english"
    assert json_of()["languages"] == [{"code": "en"}]
    assert json_of(language="de")["languages"] == [{"code": "de"}]
    done = ask(stream="true").text.strip().split("\n\n")[-1].removeprefix("data: ")
    assert json.loads(done)["languages"] == [{"code": "en"}]
    assert json_of(language="fr")["error"]["param"] == "language"


def test_it_is_loaded_only_when_it_is_asked() -> None:
    code = (
        "import sys; from parakeet_stt.server.files.spoken_language import LanguageDetector; LanguageDetector(['en']);"
        "sys.exit('py3langid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
