"""Three browser engines behind one small interface, so that a test does not care which it runs in.

Chromium and Firefox by Playwright; WebKit by Playwright's own build where it is installed, else by
Debian's WebKitGTK through WebDriver.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from playwright.sync_api import Browser, BrowserContext, Error, Playwright
from playwright.sync_api import Page as PlaywrightPage

CHROMIUM_WEBGPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)
# The address bar's popups are pages of their own: with each tab Chromium started a process for
# them, 12 % of the CPU time of opening the demo. As only the last of these switches counts, what
# Playwright turns off is here again.
CHROMIUM_WITHOUT = (
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup,"
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,DialMediaRouteProvider,"
    "GlobalMediaControls,HttpsUpgrades,LensOverlay,MediaRouter,PaintHolding,Translate,AimEnabled,"
    "ThirdPartyStoragePartitioning,BlockOriginHeaderModificationOnRedirect,OptimizationHints,"
    "AvoidCorsURLLoaderRestartOnRedirect,NetworkTimeServiceQuerying"
)
FIREFOX_WEBGPU = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,
    "dom.webgpu.wgpu-backend": "vulkan",
    "gfx.webrender.all": True,
}
# Tests' pages live for seconds. Of a boot's CPU time V8 spent a quarter and JavaScriptCore two
# fifths on optimizing WebAssembly that then hardly ran: here a function is optimized when it is
# some hundred times hotter than by default. What is measured (bench/) runs by the default.
CHROMIUM_SHORT_LIVES = "--js-flags=--wasm-tiering-budget=180000000 --no-wasm-inlining"
WEBKIT_SHORT_LIVES = {"JSC_thresholdForOMGOptimizeAfterWarmUp": "5000000"}
# For Playwright Firefox keeps answers' bodies in its main process: 200 MB of them by default, and
# no less than what Playwright asks for.
FIREFOX_BODIES = {"remote.network.maxTotalDataSize": 20_000_000}
# A microphone that beeps. Chromium asks for it, and its driver answers; Firefox does not ask.
CHROMIUM_MICROPHONE = "--use-fake-device-for-media-stream"
FIREFOX_MICROPHONE = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
}
NO_PREFS: Mapping[str, int | bool] = MappingProxyType({})
TIMEOUT_S = 120
STARTS_S = (15, 30, 60)  # patience for WebKit's start, which takes half a second


class Page(Protocol):
    """A tab."""

    def open(self, url: str) -> None: ...

    def run(self, function: str, argument: Any = None) -> Any:
        """Call an (async) JavaScript function with a JSON argument; its JSON result."""
        ...

    def type(self, selector: str, text: str) -> None:
        """Replace a field's text and press Ctrl+Enter."""
        ...

    def press(self, *keys: str) -> None:
        """Press keys one after the other, each a character or "Enter", "Shift+Tab" and such."""
        ...

    def screenshot(self, path: Path) -> None: ...

    def new_tab(self) -> Page:
        """Another tab of the same profile: it finds the caches that this one has filled."""
        ...

    def close(self) -> None: ...


# What moves in a page while it starts, loads or answers.
PROGRESS = """[...document.querySelectorAll('#status, #bytes, #progress, #messages, #matrix')]
  .map((part) => part.textContent + (part.value ?? '')).join('|')"""


# Polled in the page, for a second a call: calls from here cost two processes more than the page.
POLL = """async () => {
  const end = performance.now() + 1000;
  for (;;) {
    const done = Boolean(CONDITION);
    if (done || performance.now() > end) return [done, PROGRESS];
    await new Promise((wake) => setTimeout(wake, 50));
  }
}"""


def wait_for(page: Page, condition: str, timeout: float = TIMEOUT_S) -> None:
    """Poll a JavaScript expression, which may await, until it is true.

    TimeoutError once nothing in the page has moved for `timeout` seconds.
    """
    poll = POLL.replace("CONDITION", condition).replace("PROGRESS", PROGRESS)
    end, seen = time.monotonic() + timeout, None
    while True:
        try:
            done, progress = page.run(poll)
        except Error as error:
            if "context was destroyed" not in str(error):
                raise
            done, progress = False, "another page was opened"
        if done:
            return
        if progress != seen:
            end, seen = time.monotonic() + timeout, progress
        if time.monotonic() > end:
            raise TimeoutError(
                f"{condition} stayed false, and nothing moved for {timeout} s: {progress[:200]}"
            )


def wait_until(done: Callable[[], bool], timeout: float = TIMEOUT_S) -> None:
    """Poll something outside the pages, a server's counts say, until it is true."""
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"what was waited for did not come within {timeout} s")
        time.sleep(0.05)


class PlaywrightTab:
    """Chromium, Firefox, or Playwright's WebKit."""

    def __init__(self, page: PlaywrightPage) -> None:
        self.page = page
        page.set_default_timeout(TIMEOUT_S * 1000)

    def open(self, url: str) -> None:
        self.page.goto(url)

    def run(self, function: str, argument: Any = None) -> Any:
        return self.page.evaluate(function, argument)

    def type(self, selector: str, text: str) -> None:
        self.page.fill(selector, text)
        self.page.press(selector, "Control+Enter")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=path)

    def new_tab(self) -> Page:
        return PlaywrightTab(self.page.context.new_page())

    def close(self) -> None:
        self.page.close()
        if not self.page.context.pages:
            self.page.context.close()


class WebDriverTab:
    """WebKitGTK's MiniBrowser."""

    def __init__(self, driver: Any, close: Callable[[], None]) -> None:
        self._driver = driver
        self._close = close

    def open(self, url: str) -> None:
        self._driver.get(url)

    def run(self, function: str, argument: Any = None) -> Any:
        from selenium.common.exceptions import WebDriverException

        script = f"""const done = arguments[arguments.length - 1];
            Promise.resolve().then(() => ({function})(JSON.parse(arguments[0])))
              .then((value) => done(JSON.stringify({{ value: value ?? null }})),
                    (error) => done(JSON.stringify({{ error: String(error) }})));"""
        try:
            answer = self._driver.execute_async_script(script, json.dumps(argument))
        except WebDriverException as error:
            if "Could not parse script result" in str(error):  # all that the driver says of it
                raise RuntimeError("WebKitGTK's web process crashed") from error
            raise
        result = json.loads(answer)
        if "error" in result:
            raise RuntimeError(result["error"])
        return result["value"]

    def type(self, selector: str, text: str) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        field = self._driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text.replace("\n", Keys.ENTER))
        field.send_keys(Keys.CONTROL + Keys.ENTER)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            parts = [getattr(Keys, part.upper(), part) for part in key.split("+")]
            actions = ActionChains(self._driver)
            for held in parts[:-1]:
                actions = actions.key_down(held)
            actions = actions.send_keys(parts[-1])
            for held in reversed(parts[:-1]):
                actions = actions.key_up(held)
            actions.perform()

    def screenshot(self, path: Path) -> None:
        self._driver.save_screenshot(str(path))

    def new_tab(self) -> Page:
        return self  # a driver sees one tab at a time, and all are of one profile

    def close(self) -> None:
        self._close()


def always() -> bool:
    return True


@dataclass(frozen=True)
class Engine:
    """A browser that runs."""

    name: str
    webgpu: bool
    new_page: Callable[[], Page]
    is_running: Callable[[], bool] = always


def engine_of(browser: Browser, name: str, *, webgpu: bool) -> Engine:
    """Pages with a profile of their own each."""

    def new_page() -> Page:
        return PlaywrightTab(browser.new_context().new_page())

    return Engine(name, webgpu, new_page, browser.is_connected)


@contextmanager
def chromium(
    playwright: Playwright, name: str, *, webgpu: bool, flags: Sequence[str] = ()
) -> Iterator[Engine]:
    # Memory is measured at once: by itself Chromium waits for a collection, 10 seconds and more.
    eager = "--enable-blink-features=ForceEagerMeasureMemory"
    args = [*(CHROMIUM_WEBGPU if webgpu else ()), "--enable-precise-memory-info", eager]
    args += [CHROMIUM_MICROPHONE, CHROMIUM_WITHOUT, *flags]
    if os.geteuid() == 0:
        args.append("--no-sandbox")
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=args)
    yield engine_of(browser, name, webgpu=webgpu)
    browser.close()


def chromium_for_tests(playwright: Playwright, name: str, *, webgpu: bool) -> Any:
    return chromium(playwright, name, webgpu=webgpu, flags=[CHROMIUM_SHORT_LIVES])


@contextmanager
def firefox(playwright: Playwright, name: str, *, webgpu: bool) -> Iterator[Engine]:
    # Debian's stock Firefox speaks WebDriver BiDi; "moz-" channels are Playwright's way to it.
    browser = playwright.firefox.launch(
        channel="moz-firefox",
        executable_path=shutil.which("firefox-esr") or shutil.which("firefox"),
        firefox_user_prefs={
            **FIREFOX_BODIES,
            **FIREFOX_MICROPHONE,
            **(FIREFOX_WEBGPU if webgpu else {"dom.webgpu.enabled": False}),
        },
    )
    yield engine_of(browser, name, webgpu=webgpu)
    browser.close()


@contextmanager
def on_disk(
    playwright: Playwright, name: str, firefox_prefs: Mapping[str, int | bool] = NO_PREFS
) -> Iterator[BrowserContext]:
    """A started Chromium or Firefox with WebGPU on an empty profile on disk, as a visitor has it.

    The contexts of the others keep what a page stores in memory. `firefox_prefs` are Firefox's
    alone: about:config has them.
    """
    with tempfile.TemporaryDirectory(prefix="bascule-profile-", ignore_cleanup_errors=True) as home:
        if name.startswith("chromium"):
            root = ("--no-sandbox",) if os.geteuid() == 0 else ()
            context = playwright.chromium.launch_persistent_context(
                home,
                executable_path=shutil.which("chromium"),
                args=[*CHROMIUM_WEBGPU, CHROMIUM_WITHOUT, *root],
            )
        else:
            context = playwright.firefox.launch_persistent_context(
                home,
                channel="moz-firefox",
                executable_path=shutil.which("firefox-esr") or shutil.which("firefox"),
                firefox_user_prefs={**FIREFOX_BODIES, **FIREFOX_WEBGPU, **firefox_prefs},
            )
        try:
            yield context
        finally:
            context.close()


@contextmanager
def webkit(playwright: Playwright, name: str, *, webgpu: bool) -> Iterator[Engine]:
    try:
        browser = playwright.webkit.launch()
    except Error:  # Playwright's build is not installed
        with webkit_gtk(name) as engine:
            yield engine
        return
    yield engine_of(browser, name, webgpu=webgpu)
    browser.close()


@contextmanager
def webkit_gtk(name: str) -> Iterator[Engine]:
    """MiniBrowser on a virtual display with a session bus of its own."""
    listed = subprocess.run(
        ["dpkg", "-L", "libwebkit2gtk-4.1-0"], capture_output=True, text=True, check=True
    )
    browser = next(line for line in listed.stdout.splitlines() if line.endswith("/MiniBrowser"))
    with virtual_display() as display, session_bus() as bus, ExitStack() as all_pages:
        environment = {
            **os.environ,
            "DISPLAY": display,
            "DBUS_SESSION_BUS_ADDRESS": bus,
            "NO_AT_BRIDGE": "1",
            # Without a GPU these two took 40 % of a page's CPU time: layers composited by OpenGL in
            # software, and Skia drawing by it.
            "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
            "WEBKIT_SKIA_ENABLE_CPU_RENDERING": "1",
            **WEBKIT_SHORT_LIVES,
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
        }

        def new_page() -> Page:
            # One browser per page: whatever a test leaves behind, wedged or full, ends with it.
            own = ExitStack()
            all_pages.callback(own.close)
            return WebDriverTab(own.enter_context(minibrowser(browser, environment)), own.close)

        yield Engine(name, False, new_page)


@contextmanager
def minibrowser(binary: str, environment: dict[str, str]) -> Iterator[Any]:
    """A driver with a browser of its own, which is killed when it does not quit.

    WebKitWebDriver now and then never answers who asks it for a browser: another one is asked then.
    """
    from urllib3.exceptions import ReadTimeoutError

    *first, last = STARTS_S
    for patience in first:
        try:
            service, driver = started_minibrowser(binary, environment, patience)
            break
        except ReadTimeoutError as error:
            print(f"WebKitWebDriver started no browser, and another one is asked: {error}")
    else:
        service, driver = started_minibrowser(binary, environment, last)
    try:
        yield driver
    finally:
        kill_group(service)


def started_minibrowser(
    binary: str, environment: dict[str, str], patience: float
) -> tuple[subprocess.Popen[bytes], Any]:
    from selenium import webdriver
    from selenium.webdriver.remote.client_config import ClientConfig
    from selenium.webdriver.remote.remote_connection import RemoteConnection

    port = free_port()
    service = subprocess.Popen(
        ["WebKitWebDriver", f"--port={port}"], env=environment, start_new_session=True
    )
    try:
        wait_for_port(port)
        options = webdriver.WebKitGTKOptions()
        options.binary_location = binary
        options.add_argument("--automation")
        config = ClientConfig(f"http://127.0.0.1:{port}", timeout=patience)
        driver = webdriver.Remote(RemoteConnection(client_config=config), options=options)
        # A script's own timeout comes first, so that it is told as such.
        config.timeout = TIMEOUT_S + 30
        driver.set_script_timeout(TIMEOUT_S)
        driver.set_page_load_timeout(TIMEOUT_S)
    except BaseException:
        kill_group(service)
        raise
    return service, driver


def kill_group(service: subprocess.Popen[bytes]) -> None:
    os.killpg(service.pid, signal.SIGKILL)
    service.wait()


@contextmanager
def virtual_display() -> Iterator[str]:
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as result:
        number = result.readline().strip()
    try:
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def session_bus() -> Iterator[str]:
    command = ["dbus-daemon", "--session", "--nofork", "--nosyslog", "--print-address=1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.05)


ENGINES = {
    "chromium-webgpu": (chromium_for_tests, True),
    "chromium-no-adapter": (chromium_for_tests, False),
    "firefox-webgpu": (firefox, True),
    "firefox-no-webgpu": (firefox, False),
    "webkit": (webkit, False),
}


class Engines:
    """Starts each engine when first asked for; it stays until it crashes or the session ends."""

    def __init__(self, playwright: Playwright) -> None:
        self._playwright = playwright
        self._started: dict[str, tuple[Engine, ExitStack]] = {}

    def named(self, name: str) -> Engine:
        if name in self._started:
            engine, stack = self._started[name]
            if engine.is_running():
                return engine
            stack.close()
        start, webgpu = ENGINES[name]
        stack = ExitStack()
        engine = stack.enter_context(start(self._playwright, name, webgpu=webgpu))
        self._started[name] = engine, stack
        return engine

    def close(self) -> None:
        for _, stack in self._started.values():
            stack.close()
