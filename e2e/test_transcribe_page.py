"""The page of speech, as somebody uses it: a file, the microphone, what fails, and a real model."""

from __future__ import annotations

import shutil
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from e2e.axe import defects
from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, wait_for
from tests.speech_folders import hugging_face

RECORDINGS = Path(__file__).parents[1] / "tests" / "recordings"
GIVE = """async (url) => {
  const blob = url ? await (await fetch(url)).blob() : new Blob([]);
  const data = new DataTransfer();
  data.items.add(new File([blob], "sound"));
  const input = document.querySelector("#file");
  input.files = data.files;
  input.dispatchEvent(new Event("change"));
}"""
SHOWN = "document.querySelector('#error').checkVisibility()"
WHAT = "() => document.querySelector('#error-what').textContent"
# 10 hours of 8-bit silence at 3000 Hz: 108 MB, which would be 2.3 GB decoded. `decoded` are the
# bytes of what is.
GIVE_HOURS = """(header) => {
  const bytes = Uint8Array.from(header);
  const part = new Uint8Array(1_000_000).fill(128);
  const data = new DataTransfer();
  data.items.add(new File([bytes, ...Array(108).fill(part)], "hours.wav"));
  globalThis.decoded = [];
  const decode = OfflineAudioContext.prototype.decodeAudioData;
  OfflineAudioContext.prototype.decodeAudioData = function (...given) {
    globalThis.decoded.push(given[0].byteLength);
    return decode.apply(this, given);
  };
  const input = document.querySelector("#file");
  input.files = data.files;
  input.dispatchEvent(new Event("change"));
}"""
# Where an engine does not say how long a file is: each has files of which it does not.
NO_LENGTH = """() => {
  Object.defineProperty(HTMLMediaElement.prototype, "duration", { get: () => Infinity });
}"""
DONE = "document.querySelector('#speed').textContent && document.querySelector('#stop').hidden"
TEXT = "() => [...document.querySelectorAll('#segments li span')].map((each) => each.textContent)"
RECORD = """() => {
  document.querySelector("#speed").textContent = "";
  document.querySelector("#record").click();
}"""
# Where no driver answers for a visitor.
REFUSE = """() => {
  navigator.mediaDevices.getUserMedia = async () => {
    throw new DOMException("no", "NotAllowedError");
  };
}"""
# The browser's own microphone, whose track is at hand.
ALLOW = """() => {
  delete navigator.mediaDevices.getUserMedia;
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    globalThis.track = stream.getTracks()[0];
    return stream;
  };
}"""
# Rows of the waveform that something is drawn in: silence is a line.
HEIGHT = """() => {
  const canvas = document.querySelector("#waveform");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const rows = new Set();
  for (let at = 3; at < data.length; at += 4) {
    if (data[at]) rows.add(Math.floor(at / 4 / canvas.width));
  }
  return rows.size;
}"""
LISTEN_MS = 1500
LISTEN = "(ms) => new Promise((resolve) => setTimeout(resolve, ms))"
RECORDS = "document.querySelector('#record').textContent === 'Stop recording'"
STOP = "() => document.querySelector('#record').click()"
UNPLUG = "() => { track.onended(); }"
NOTES = "() => document.querySelector('#notes').textContent"


def give(page: Page, site: Site, file: str) -> None:
    page.run("() => { document.querySelector('#speed').textContent = ''; }")
    page.run(GIVE, f"{site.url}/extra/{file}" if file else "")


def tiny_page(engine: Engine, site: Site) -> Page:
    """The page with a model of random weights, ready; the caller closes it."""
    folder = site.extra / "speech-tiny"
    if not folder.exists():
        hugging_face(folder)
    page = engine.new_page()
    page.open(f"{site.url}/transcribe.html?tier=wasm&model=/extra/speech-tiny")
    assert settled(page) == "ready"
    return page


def test_a_file_the_microphone_and_what_fails(engine: Engine, site: Site) -> None:
    (site.extra / "garbage.wav").write_bytes(b"RIFF" + bytes(100))
    with wave.open(str(site.extra / "noise.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        samples = np.random.default_rng(5).integers(-9000, 9000, 12_000, np.int16)
        out.writeframes(samples.tobytes())
    page = tiny_page(engine, site)
    for file, result in (("", "file is empty"), ("garbage.wav", "cannot read that file")):
        give(page, site, file)
        wait_for(
            page,
            f"{SHOWN} && document.querySelector('#error-what').textContent.includes('{result}')",
        )
    give(page, site, "noise.wav")
    wait_for(page, DONE)
    assert "times real-time speed" in page.run("() => document.querySelector('#speed').textContent")
    assert " on wasm: " in page.run("() => document.querySelector('#speed').textContent")
    assert page.run("() => document.querySelector('#length').textContent") == "0:00"
    if engine.name.startswith("webkit"):  # WebKitGTK's driver has no media devices
        page.close()
        return
    assert defects(page, site.extra) == []
    if engine.name.startswith("firefox"):
        page.run(REFUSE)
    page.run(RECORD)
    wait_for(page, SHOWN)
    assert "microphone was refused" in page.run(WHAT)
    assert isinstance(page, PlaywrightTab)
    if not engine.name.startswith("firefox"):
        page.page.context.grant_permissions(["microphone"])
    page.run(ALLOW)
    for end, result in ((STOP, ""), (UNPLUG, "microphone was disconnected")):
        page.run(RECORD)
        wait_for(page, RECORDS)
        page.run(LISTEN, LISTEN_MS)
        page.run(end)
        wait_for(page, DONE)
        assert result in page.run(NOTES)
        assert page.run("() => document.querySelector('#length').textContent") == "0:01"
        assert page.run(HEIGHT) > 4
    page.close()


def wav_header(nbytes: int, rate: int, *, code: int = 1, width: int = 1) -> bytes:
    """The 44 bytes before one channel of samples of `width` bytes."""
    kind = struct.pack("<HHIIHH", code, 1, rate, rate * width, width, 8 * width)
    rest = b"WAVEfmt " + struct.pack("<I", 16) + kind + b"data" + struct.pack("<I", nbytes)
    return b"RIFF" + struct.pack("<I", nbytes + 36) + rest


def test_ten_hours_are_refused_before_they_are_decoded(engine: Engine, site: Site) -> None:
    page = tiny_page(engine, site)
    page.run(GIVE_HOURS, [*wav_header(108_000_000, 3000)])
    wait_for(page, SHOWN)
    assert page.run(WHAT) == "The recording is longer than 4 hours."
    assert page.run("() => globalThis.decoded") == []
    page.close()


@pytest.mark.parametrize("case", ["no length", "no sound"])
def test_a_large_file_without_a_length_is_decoded_no_further_than_its_beginning(
    engine: Engine, site: Site, case: str
) -> None:
    page = tiny_page(engine, site)
    if case == "no length":
        page.run(NO_LENGTH)
    page.run(GIVE_HOURS, [*wav_header(108_000_000, 3000)] if case == "no length" else [1, 2, 3])
    wait_for(page, SHOWN)
    wanted = {
        "no length": "The recording is longer than 4 hours.",
        "no sound": "This browser cannot read that file as sound.",
    }
    assert page.run(WHAT) == wanted[case]
    assert page.run("() => globalThis.decoded") == [1 << 18]
    page.close()


def test_samples_that_are_no_numbers(engine: Engine, site: Site) -> None:
    samples = np.random.default_rng(5).uniform(-0.3, 0.3, 12_000).astype("<f4")
    samples[5000:5100] = np.nan
    data = samples.tobytes()
    header = wav_header(len(data), 16_000, code=3, width=4)
    (site.extra / "nan.wav").write_bytes(header + data)
    page = tiny_page(engine, site)
    give(page, site, "nan.wav")
    wait_for(page, SHOWN)
    assert page.run(WHAT) == "audio: expected finite numbers, found nan at index 5,000."
    (site.extra / "sound.wav").write_bytes(header + bytes(len(data)))
    give(page, site, "sound.wav")  # the page goes on
    wait_for(page, DONE)
    page.close()


@pytest.mark.one_engine
def test_tiny_en_writes_down_a_recording(engine: Engine, site: Site) -> None:
    shutil.copy(RECORDINGS / "measure.wav", site.extra / "measure.wav")
    page = engine.new_page()
    page.open(f"{site.url}/transcribe.html?tier=wasm")
    give(page, site, "measure.wav")  # it waits for the model
    assert settled(page) == "ready"
    wait_for(page, DONE)
    said = "Please measure the time at one step takes and write the number on the second page."
    assert page.run(TEXT) == [said]
    print(page.run("() => document.querySelector('#speed').textContent"))
    page.close()
