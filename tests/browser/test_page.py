"""The page as an operator meets it."""

import re
import signal
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from citybrain.findings import Place
from tests.browser import messages
from tests.browser.conftest import DEADLINE_MS, Centre, Complaints, Live

IMAGES = Path(__file__).parents[2] / "docs" / "images"
FAINT = Path(__file__).with_name("faint.js")
OUTSIDE = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => `${one.tagName}.${one.className}`)"""
VIEW = {"width": 1280, "height": 800}
expect.set_options(timeout=DEADLINE_MS)


def _now() -> int:
    return int(time.time() * 1000)


def _closing_now(live: Live) -> list[messages.Out]:
    end = _now() // 60_000 * 60_000
    panes = range(end, _now() - 10_000, 10_000)
    return [
        messages.window(live.city, shard, "vehicle_speed", 10_000, start)
        for shard in live.city.shards
        for start in (end - 10_000, *panes)
    ]


async def _open(browser: Browser, centre: Centre, complaints: Complaints, lang: str) -> Page:
    page = complaints.listen(await browser.new_page(viewport=VIEW))
    await page.goto(f"{centre.url}?lang={lang}")
    return page


def _alert(number: int, **more: object) -> messages.Out:
    return messages.alert(
        f"noise/canal/{number}", "noise", Place(zone="canal"), 4, _now(), kind="noise_level",
        observed=80.0, expected=60.0, unit="dB(A)", advice="noise", **more,
    )  # fmt: skip


async def test_a_living_city_is_painted_and_described_in_both_languages(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    now = _now()
    await live.say(messages.hours(live.city, now, minutes=30))
    await live.say(messages.some_alerts(live.city, now))
    page = await _open(browser, centre, complaints, "zh-CN")
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(page.locator("h1")).to_have_text(live.city.zh)
    await expect(page.locator(".generated")).to_have_text("模拟数据")
    await expect(page.locator(".alert")).to_have_count(6)
    await expect(page.locator(".alert strong").first).to_have_text("疑似交通事件")
    await expect(page.locator(".map-box[data-painted]")).to_be_attached()
    await expect(page.locator(".map-box canvas")).to_be_visible()
    await expect(page.locator(".link-state")).to_have_text("已连接")
    await expect(page.locator(".shard")).to_have_count(len(live.city.shards))

    # An alert leads to its place on the map, its sensor's chart and what to do about it.
    await page.locator(".alert .face").nth(2).click()
    await expect(page.locator(".alert.chosen .advice p")).to_contain_text("查看该路段视频")
    await expect(page.locator("#panel .uplot canvas")).to_be_visible()
    await expect(page.locator("#panel h2")).not_to_be_empty()

    await page.keyboard.press("l")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    assert "lang=en" in page.url
    await expect(page.locator("h1")).to_have_text(live.city.en)
    await expect(page.locator(".alert.chosen .advice p")).to_contain_text("cameras")
    await expect(page.locator(".generated")).to_have_text("generated data")

    # The clock is the city's, not the browser's.
    await expect(page.locator(".date")).to_contain_text(re.compile(r"GMT\+[12]|CES?T"))


async def test_roads_take_the_colour_of_their_state_on_the_canvas(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    page = await _open(browser, centre, complaints, "en")
    await expect(page.locator(".map-box[data-painted]")).to_be_attached()

    await live.say(_closing_now(live))
    other = await browser.new_page()

    async def red_pixels() -> int:
        # What the operator sees, decoded in a tab that has nothing else to do.
        return await _count(other, await page.screenshot(), (217, 45, 58))

    before = await red_pixels()  # the legend's own swatch lies over the map
    jammed = [messages.link_state(live.city, link, "heavy-jam", _now()) for link in live.city.links]
    await live.say(jammed)
    for _ in range(45):
        # A map whose data are old is grey: windows close meanwhile, as in a living city.
        await live.say(_closing_now(live))
        if await red_pixels() > before + 1_000:
            break
        await page.wait_for_timeout(1_000)
    else:
        raise AssertionError("no road turned red within a minute")


async def test_an_alert_appears_changes_and_clears_without_a_reload(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    page = await _open(browser, centre, complaints, "en")
    await expect(page.locator("body")).not_to_have_attribute("data-state", "reconnecting")
    await live.say([_alert(1)])
    row = page.locator('[data-alert="noise/canal/1"]')
    await expect(row).to_be_visible()
    await expect(row).to_contain_text("Level IV blue")
    await expect(row).to_contain_text("80 dB(A) observed · 60 dB(A) expected")
    await expect(row).to_contain_text("generated")
    await live.say([_alert(1, revision=1, acknowledged=True, acknowledged_by="desk 1")])
    await expect(row).to_contain_text("acknowledged")
    await live.say([_alert(1, revision=2, active=False, cleared_ms=_now())])
    await expect(row).to_have_count(0)
    await page.get_by_role("tab", name="Cleared").click()
    await expect(row).to_be_visible()


async def test_a_new_alert_never_moves_the_row_under_the_pointer(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    await live.say([_alert(1)])
    page = await _open(browser, centre, complaints, "en")
    row = page.locator('[data-alert="noise/canal/1"]')
    await row.hover()
    place = await row.bounding_box()
    await live.say([messages.alert("cloudburst/c/1", "cloudburst", Place(zone=""), 1, _now())])
    await expect(page.locator(".fresh")).to_have_text("1 new, show")
    await expect(page.locator(".list .alert")).to_have_count(1)
    assert place is not None
    now = await row.bounding_box()
    assert now is not None
    assert now["height"] == place["height"]
    await page.locator(".fresh").click()
    await expect(page.locator(".list .alert").first).to_have_attribute(
        "data-alert", "cloudburst/c/1"
    )


async def test_a_flood_of_alerts_is_called_one(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    await live.say([_alert(number) for number in range(14)])
    page = await _open(browser, centre, complaints, "en")
    await expect(page.locator("#flood")).to_contain_text("14 alerts in ten minutes")


async def test_a_restarted_centre_is_found_again_with_what_happened_meanwhile(
    live: Live, centre: Centre, browser: Browser
) -> None:
    # Failed requests are the point of this test, so its console may complain.
    page = await _open(browser, centre, Complaints(), "en")
    await expect(page.locator(".link-state")).not_to_have_text("reconnecting…")
    await centre.stop(signal.SIGKILL)
    await expect(page.locator(".live")).to_have_text("CUT OFF")
    await expect(page.locator(".link-state")).to_have_text("reconnecting…")
    await live.say([_alert(7)])
    await centre.start()
    await expect(page.locator(".link-state")).to_have_text("connected")
    await expect(page.locator('[data-alert="noise/canal/7"]')).to_be_visible()
    await live.say([_alert(8)])
    await expect(page.locator('[data-alert="noise/canal/8"]')).to_be_visible()


async def test_without_webgl_the_lists_charts_and_figures_go_on(
    live: Live, centre: Centre, browser_without_webgl: Browser, complaints: Complaints
) -> None:
    now = _now()
    await live.say(messages.hours(live.city, now, minutes=10))
    await live.say(messages.some_alerts(live.city, now))
    page = await _open(browser_without_webgl, centre, complaints, "en")
    await expect(page.locator(".no-map")).to_contain_text("no WebGL")
    await page.locator('[data-alert="congestion/b/3"] .face').click()
    await expect(page.locator("#panel .uplot canvas")).to_be_visible()
    await page.mouse.move(300, 300)  # new rows wait while the pointer is over the list
    await live.say([_alert(9)])
    await expect(page.locator('[data-alert="noise/canal/9"]')).to_be_visible()


@pytest.mark.parametrize("lang", ["zh-CN", "en"])
async def test_alerts_are_in_sight_and_legible_on_every_window(
    live: Live, centre: Centre, browser_without_webgl: Browser, complaints: Complaints, lang: str
) -> None:
    world = centre.data / "world" / "progress.json"
    world.parent.mkdir()
    world.write_text('{"from_ms": 0, "to_ms": 1000, "through_ms": 427, "finished": false}')
    await live.say(_closing_now(live))
    # 64 within ten minutes: a flood, some of them seen already.
    await live.say(
        _alert(n, opened_ms=_now() - n * 9_000, acknowledged=n % 5 == 0) for n in range(500)
    )
    page = await _open(browser_without_webgl, centre, complaints, lang)
    await expect(page.locator(".list .alert")).to_have_count(100)
    await expect(page.locator(".more")).to_contain_text("400")
    await expect(page.locator("footer")).to_contain_text("42.7%")
    await expect(page.locator("footer")).to_contain_text({"en": "generated", "zh-CN": "模拟"}[lang])
    faint = FAINT.read_text()
    for width, height in ((1600, 900), (1280, 720), (1024, 768), (800, 600), (390, 844)):
        await page.set_viewport_size({"width": width, "height": height})
        box = await page.locator(".list .alert").nth(1).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= height, f"two alerts are in sight at {width}"
        assert await page.evaluate(OUTSIDE) == [], width
        assert await page.evaluate(faint) == {}, width
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert await page.evaluate(faint) == {}


async def test_the_keyboard_alone_is_enough(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    await live.say([_alert(1), _alert(2, opened_ms=_now() - 60_000)])
    page = await _open(browser, centre, complaints, "en")
    await expect(page.locator(".list .alert")).to_have_count(2)
    await page.keyboard.press("j")
    await expect(page.locator(".alert.chosen")).to_have_attribute("data-alert", "noise/canal/1")
    await page.keyboard.press("j")
    await expect(page.locator(".alert.chosen")).to_have_attribute("data-alert", "noise/canal/2")
    await page.keyboard.press("k")
    await expect(page.locator(".alert.chosen")).to_have_attribute("data-alert", "noise/canal/1")
    await page.keyboard.press("/")
    await page.keyboard.type("nothing like it")
    await expect(page.locator(".empty")).to_have_text("Nothing matches")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_ten_tabs_share_one_stream(
    live: Live, centre: Centre, browser: Browser, complaints: Complaints
) -> None:
    context = await browser.new_context()
    pages = [complaints.listen(await context.new_page()) for _ in range(10)]
    for page in pages:
        await page.goto(f"{centre.url}?lang=en")
    for page in pages:
        await expect(page.locator(".link-state")).not_to_have_text("reconnecting…")
    await live.say([_alert(3)])
    for page in pages:
        await expect(page.locator('[data-alert="noise/canal/3"]')).to_be_visible()


async def _count(page: Page, image: bytes, colour: tuple[int, int, int]) -> int:
    """Pixels near a colour in a PNG."""
    import base64

    found: int = await page.evaluate(
        """async ([image, [r, g, b]]) => {
          const bytes = Uint8Array.from(atob(image), (c) => c.charCodeAt(0));
          const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
          const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
          pen.drawImage(bitmap, 0, 0);
          const { data } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            const [dr, dg, db] = [data[i] - r, data[i + 1] - g, data[i + 2] - b];
            if (Math.abs(dr) + Math.abs(dg) + Math.abs(db) < 40) count += 1;
          }
          return count;
        }""",
        [base64.b64encode(image).decode(), list(colour)],
    )
    return found
