"""The functions that web/worker.js calls: a model in a worker, addressed in strings and buffers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from bascule import cache
from bascule.backend.base import Tier
from bascule.base.arrays import need_numpy
from bascule.base.page_settings import IN_PAGE
from bascule.base.progress import ProgressCallback
from bascule.base.remembered import open_remembered
from bascule.device.open_tiers import OpenTiers
from bascule.errors import BasculeError, InputError
from bascule.page.text import ids_of, options_from_json, prompt_from_json, read_out
from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.generating import TextStream
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.loaded import LoadedModel
from bascule.tasks.models import AnyModel
from bascule.tasks.registry import locate
from bascule.tasks.speech import SpeechModel
from bascule.tasks.text_to_text import TextToTextModel
from bascule.tasks.voice import VoiceActivityModel
from bascule.weights.recorded import FilesRead, remember_load

if TYPE_CHECKING:
    from bascule.page.album import Album


_PICTURE_ACTIONS = ("search", "like", "classify", "remove")
M = TypeVar("M", bound=LoadedModel)
# JavaScript's callbacks: a piece of text with the number of tokens, and progress.
ReportPiece = Callable[[str, int], None]
Report = Callable[..., None]
P = ParamSpec("P")


def _as_answer(
    method: Callable[Concatenate[PageSession, P], Coroutine[Any, Any, Any]],
) -> Callable[Concatenate[PageSession, P], Coroutine[Any, Any, Any]]:
    """Run a session's method as cancellable work; errors become JSON."""

    @wraps(method)
    async def answer(self: PageSession, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await self.answered(method(self, *args, **kwargs))

    return answer


class PageSession:
    """One model at a time, on devices that outlive it.

    An answer is JSON, possibly {"error": ...}, or an array's memory.
    """

    def __init__(self) -> None:
        if IN_PAGE:
            from bascule.base.bridge_browser import LOADING, import_ahead

            import_ahead(LOADING)
        self._model: AnyModel | None = None
        self._album: Album | None = None
        self._tiers = OpenTiers()
        self._running: set[asyncio.Task[Any]] = set()
        self._remembering: asyncio.Task[None] | None = None

    async def load(self, model: str, tier: str, report: Report) -> str:
        """Load a model in place of the present one, whose work is stopped.

        `report(stage, done, total, unit)` gets its progress.
        """
        # Here, not in the work: of two loads that start together the later one stays.
        stopping = self._stop()

        async def work() -> str:
            await stopping
            self._close_model()
            loaded = await self._tiers.load(model, tier, progress=_reporting(report))
            self._model, decision = loaded, self._tiers.decision
            auto = loaded.tier if tier == "auto" else None
            self._remembering = asyncio.ensure_future(_remember(model, loaded.files, auto))
            return json.dumps(
                {
                    "model": loaded.name,
                    "tier": loaded.tier,
                    "reason": loaded.tier_reason,
                    "device": loaded.device_name,
                    **_kind_of(loaded),
                    "stats": loaded.stats,
                    "proof": loaded.proof.as_json(),
                    "decision": decision.as_json() if decision else None,
                    "warnings": await cache.warnings(),
                }
            )

        return await self.answered(work())

    @_as_answer
    async def embed(self, texts: str) -> Any:
        """Embed a JSON list of texts; return `EmbeddedRows`, or a JSON error."""
        return await self._model_of("embed", EmbeddingModel).embed_rows(json.loads(texts))

    @_as_answer
    async def rank(self, query: str, texts: str) -> str:
        """Score a JSON list of texts for a query; return a `Ranking` as JSON."""
        model = self._model_of("rank", ClassifierModel)
        return json.dumps(asdict(await model.rank(query, json.loads(texts))))

    @_as_answer
    async def classify(self, texts: str) -> str:
        """Classify a JSON list of texts and pairs of texts: a JSON list of `Classification`s."""
        model = self._model_of("classify", ClassifierModel)
        result = await model.classify(json.loads(texts))
        return json.dumps([asdict(each) for each in result])

    async def chat(
        self, messages: str, options: str, report_piece: ReportPiece, report: Report
    ) -> str:
        """Answer a JSON list of messages; return the Generation as JSON.

        `report_piece(text, n_tokens)` gets the text as it arrives, with the number of tokens so
        far; `report("prefill", done, total, "tokens")` how much of the prompt has been read. For
        `options` see page/text.py. A concurrent call waits for its turn.
        """

        def start(model: LanguageModel, **chosen: Any) -> TextStream:
            return model.stream_chat(json.loads(messages), **chosen)

        return await self._streamed("chat", start, options, report_piece, report)

    async def generate(
        self, prompt: str, options: str, report_piece: ReportPiece, report: Report
    ) -> str:
        """Continue a text or token ids, given as JSON; otherwise as `chat`."""

        def start(model: LanguageModel, **chosen: Any) -> TextStream:
            return model.stream(prompt_from_json(prompt), **chosen)

        return await self._streamed("generate", start, options, report_piece, report)

    @_as_answer
    async def transcribe(
        self,
        samples: Any,
        rate: int,
        options: str,
        report_segment: Callable[[str], None],
        report: Report,
    ) -> str:
        """Transcribe a Float32Array of one channel; return the Transcription as JSON, with "srt"
        and "vtt".

        `options` are those of `SpeechModel.transcribe` as JSON; `report_segment` gets each segment
        as JSON, `report` progress.
        """
        model = self._model_of("transcribe", SpeechModel)
        chosen: Any = {**json.loads(options), "sample_rate": rate}
        notify = _reporting(report)
        async with model.stream_transcribe(samples, progress=notify, **chosen) as stream:
            async for segment in stream:
                report_segment(json.dumps(segment.as_json()))
        transcription = stream.result
        files = {kind: transcription.formatted(kind) for kind in ("srt", "vtt")}
        return json.dumps({**json.loads(transcription.formatted("json")), **files})

    @_as_answer
    async def pictures(self, action: str, options: str, pixels: Any) -> str:
        """Call a method of `Album` by its name, with arguments as JSON."""
        album, chosen = await self._album_of("pictures"), json.loads(options)
        if action == "add":
            chosen["pixels"] = pixels.to_memoryview()
        elif action not in _PICTURE_ACTIONS:
            raise InputError("pictures", f"add, {', '.join(_PICTURE_ACTIONS)}", action)
        return json.dumps(await getattr(album, action)(**chosen))

    @_as_answer
    async def logits(self, ids: str) -> Any:
        """Return the (T, V) float32 logits after each of a JSON list of ids, or a JSON error."""
        return await self._model_of("logits", LanguageModel).logits(ids_of(json.loads(ids)))

    @_as_answer
    async def tune(self, budget_s: float, report: Report) -> str:
        """Tune the device for the loaded model; reports as `load`."""
        model = self._loaded("tune")
        notify = _reporting(report)
        return json.dumps((await model.tune(budget_s, progress=notify)).as_json())

    async def measure_tiers(
        self,
        model: str,
        quick: bool,
        environment: str,
        report: Report,
        report_tier: Callable[[str], None],
    ) -> str:
        """Measure all tiers (`bascule.observe.tier_bench`); return the TierReport as JSON.

        `environment` has the page's facts as JSON; `report` is called as by `load`, `report_tier`
        with each tier's figures as JSON. A loaded model is closed first.
        """
        stopping = self._stop()

        async def work() -> str:
            # Most pages never need them.
            from bascule.observe.tier_bench import measure_tiers
            from bascule.observe.tier_report import facts_of

            await stopping
            self._close_model()
            result = await measure_tiers(
                model,
                quick=quick,
                environment=facts_of(json.loads(environment)),
                progress=_reporting(report),
                finished=lambda figures: report_tier(json.dumps(asdict(figures))),
            )
            return json.dumps(result.as_json())

        return await self.answered(work())

    async def cache(self, action: str, locations: str) -> str:
        """List ("ls"), remove ("rm", a JSON list of locations, or null) or "verify" the cache."""

        async def work() -> str:
            if self._remembering is not None:
                await self._remembering
            match action:
                case "ls":
                    return json.dumps([asdict(each) for each in await cache.ls()])
                case "rm":
                    wanted = json.loads(locations)
                    return json.dumps(await cache.rm(wanted or (), everything=wanted is None))
                case "verify":
                    return json.dumps(await cache.verify())
                case _:
                    raise InputError("cache", "ls, rm or verify", repr(action))

        return await self.answered(work(), cancellable=False)

    def stats(self) -> str:
        """Return the model's counters, and how many tiers are open."""
        stats = {} if self._model is None else self._model.stats
        return json.dumps({**stats, "tiers_open": len(self._tiers.backends)})

    async def cancel(self) -> None:
        """Stop everything that runs or waits; its answers say so."""
        # A coroutine, because JavaScript's calls of coroutines start later: earlier requests have
        # started by now.
        self._stop()

    async def close(self) -> None:
        """Free the model."""
        await self._stop()
        self._close_model()

    @_as_answer
    async def _streamed(
        self,
        verb: str,
        start: Callable[..., TextStream],
        options: str,
        report_piece: ReportPiece,
        report: Report,
    ) -> str:
        model, chosen = self._model_of(verb, LanguageModel), options_from_json(options)
        stream = start(model, progress=lambda *n: report("prefill", *n, "tokens"), **chosen)
        await read_out(stream, report_piece)
        return json.dumps(asdict(stream.result))

    def _stop(self) -> asyncio.Future[Any]:
        """Start to stop; await the result until everything has ended."""
        for task in self._running:
            task.cancel()
        return asyncio.gather(*self._running, return_exceptions=True)

    def _loaded(self, verb: str) -> AnyModel:
        if self._model is None:
            raise InputError(verb, "a loaded model", "none")
        return self._model

    def _model_of(self, verb: str, kind: type[M]) -> M:
        model = self._loaded(verb)
        if not isinstance(model, kind):
            raise _another_kind(verb, _VERBS[kind][0], model)
        return model

    async def _album_of(self, verb: str) -> Album:
        """Return the pictures of the loaded model."""
        await need_numpy(verb, "Load numpy into this Pyodide first.")
        from bascule.page.album import Album  # arrays and kernels: few pages need them

        model = self._loaded(verb)
        if not isinstance(model, ImageModel | ImageTextModel):
            raise _another_kind(verb, "a model of images", model)
        if self._album is None:
            self._album = Album(model)
        return self._album

    def _close_model(self) -> None:
        if self._album is not None:
            self._album.close()
            self._album = None
        if self._model is not None:
            self._model.close()
            self._model = None

    async def answered(self, work: Any, *, cancellable: bool = True) -> Any:
        """Await work that `cancel` may end; errors become JSON."""
        task = asyncio.ensure_future(work)
        if cancellable:
            self._running.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            return _error("cancelled", "It was cancelled.", "")
        except BasculeError as error:
            return _error(error.category, error.what, error.hint)
        except MemoryError:
            return _error("memory", "The page has run out of memory.", "Close other tabs, reload.")
        except Exception as error:  # nothing may get lost between two languages
            return _error("internal", f"{type(error).__name__}: {error}", "Please report this.")
        finally:
            self._running.discard(task)


async def _remember(model: str, files: FilesRead | None, auto: Tier | None) -> None:
    """Remember for web/ahead.js what a load read and which tier "auto" chose."""
    address = locate(model).rstrip("/")
    if files is not None and address.startswith(("http://", "https://")):
        await remember_load(await open_remembered(), address, files, auto)


def _kind_of(model: AnyModel) -> dict[str, object]:
    if isinstance(model, SpeechModel):
        return {"kind": "speech-model", "languages": model.languages}
    if isinstance(model, LanguageModel):
        fields = {"maxLength": model.max_length, "canChat": model.can_chat}
        return {"kind": "language-model", **fields}
    if isinstance(model, ClassifierModel):
        return {"kind": "classifier", "labels": model.labels, "maxTokens": model.max_tokens}
    if isinstance(model, TextToTextModel):
        return {"kind": "text-to-text", "maxLength": model.max_length}
    if isinstance(model, ImageModel):
        return {"kind": "image-model", "labels": model.labels, "dimension": model.dimension}
    if isinstance(model, VoiceActivityModel):
        return {"kind": "voice-activity"}
    kind = "image-text-model" if isinstance(model, ImageTextModel) else "sentence-encoder"
    return {"kind": kind, "dimension": model.dimension, "maxTokens": model.max_tokens}


_VERBS: Mapping[type[LoadedModel], tuple[str, str]] = {
    EmbeddingModel: ("a sentence encoder", "embed"),
    ClassifierModel: ("a sequence classifier", "rank and classify"),
    ImageModel: ("a model of images", "classify and embed pictures"),
    ImageTextModel: ("a model of images and texts", "embed and compare both in Python"),
    LanguageModel: ("a language model", "chat and generate"),
    SpeechModel: ("a speech model", "transcribe"),
    TextToTextModel: ("a text-to-text model", "generate in Python"),
    VoiceActivityModel: ("a voice activity model", "find speech in Python"),
}


def _another_kind(verb: str, expected: str, model: LoadedModel) -> InputError:
    kind, verbs = _VERBS[type(model)]
    hint = f"Load {expected}; this model can {verbs}."
    return InputError(verb, expected, f"{model.name}, which is {kind}", hint=hint)


def _reporting(report: Report) -> ProgressCallback:
    return lambda p: report(p.stage, p.done, p.total, p.unit)


def _error(category: str, what: str, hint: str) -> str:
    return json.dumps({"error": {"category": category, "what": what, "hint": hint}})
