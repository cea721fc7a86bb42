"""The report of classified pictures: its text read with an HTML parser, its behaviour in a browser if there is one."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from report_pages import NASTY, Page, example, with_nasty_names, written
from sklearn.decomposition import PCA

from fewshot.classification.classified import Classified
from fewshot.classification.report import write_report
from fewshot.classification.report.drawing import label_positions, marker
from fewshot.classification.report.feature_map import feature_map
from fewshot.classification.report.markup import script, style
from fewshot.classification.report.selection import shown_queries, shown_support
from fewshot.classification.report.thumbnails import thumbnail, thumbnails
from fewshot.data.cache import PICTURES, cached_files
from fewshot.data.pictures import open_picture


def test_names_of_any_kind_stay_text(tmp_path: Path) -> None:
    plain = example(tmp_path / "a", n_classes=len(NASTY))
    nasty = with_nasty_names(plain)
    page = written(tmp_path, nasty, title="</title><script>alert(1)</script>")
    expected = written(tmp_path, dataclasses.replace(plain, skipped=nasty.skipped, settings=nasty.settings))

    def without_breaks(page: Page) -> list[str]:
        return sorted(tag for tag, _ in page.elements if tag != "wbr")  # classes have another order

    assert without_breaks(page) == without_breaks(expected)  # no name has become an element
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    readable = [re.sub("[\0\n\u202e\udcff]", "\ufffd", name) for name in NASTY]
    assert sorted(page.data["classes"]) == sorted(readable)
    assert sorted(page.data["labels"]) == sorted(name.replace("\udcff", "\\udcff") for name in NASTY)  # as in the table
    text = "".join(text for texts in page.texts.values() for text in texts)
    for name in readable:
        assert name in "".join(page.texts["bdi"])
        assert name.replace("\ufffd", "") in text.replace("\ufffd", "")
    assert page.texts["title"][0] == "</title><script>alert(1)</script>"


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = written(tmp_path, example(tmp_path / "a"))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "video", "audio"), tag
        assert "style" not in attributes
        for key in ("src", "href", "xlink:href", "srcset", "action", "formaction", "poster", "data", "background"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/")), (tag, attributes)
    without_pictures = re.sub("data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page.source)
    assert "://" not in without_pictures
    assert "@import" not in without_pictures
    assert set(re.findall(r"url\(.", without_pictures)) == {"url(#"}
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(|innerHTML|cookie", script())


def test_the_policy_allows_this_style_and_this_script_only(tmp_path: Path) -> None:
    page = written(tmp_path, example(tmp_path / "a"))
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    for kind, pattern in (("style", "<style>(.*?)</style>"), ("script", "<script>(.*?)</script>")):
        (text,) = re.findall(pattern, page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_counts(tmp_path: Path) -> None:
    classified = dataclasses.replace(example(tmp_path / "a"), skipped=((Path("x/broken.png"), "cut short"),))
    page = written(tmp_path, classified)
    old, new = classified.before.argmax(1), classified.probabilities.argmax(1)
    n_flagged = int((classified.novelty > classified.novelty_threshold).sum())  # type: ignore[operator]
    assert "24 pictures put into 3 classes, by 6 labelled pictures" in page.summary
    assert f"{(old != new).sum()} changed class after looking at all pictures together" in page.summary
    assert n_flagged > 0 and f"{n_flagged} flagged as none of the classes" in page.summary
    assert "1 file left out" in page.summary and "cut short" in page.source
    assert len(page.cards) == 24 and "not shown" not in page.summary
    cells = re.findall('<td class="number"[^>]*>([0-9,]+)</td>', page.source)
    counts = [[str((labels == c).sum()) for labels in (old, new)] for c in range(3)]
    assert cells == [cell for pair in counts for cell in pair]
    confidence = classified.probabilities.max(1)
    order = sorted(range(24), key=lambda i: (confidence[i], i))
    assert [re.search("q([0-9]+).png", card)[1] for card in page.cards] == [str(i) for i in order]  # type: ignore[index]
    for i, card in zip(order, page.cards, strict=True):
        assert ("changed from" in card) == (old[i] != new[i])
        assert ("none of the classes" in card) == bool(classified.flagged[i])
        assert f"{round(100 * confidence[i])}&nbsp;%" in card
    assert page.data["bars"][0][0] == [
        int(new[order[0]]), round(1000 * classified.before[order[0], new[order[0]]]), round(1000 * confidence[order[0]])
    ]  # fmt: skip
    for name, value in classified.settings.items():
        assert f'<th scope="row">{name}</th><td><bdi>{value}</bdi></td>' in page.source


def test_a_page_shows_no_more_pictures_than_it_may_and_says_so(tmp_path: Path) -> None:
    classified = example(tmp_path / "a", n_queries=60)
    page = written(tmp_path, classified, max_pictures=20, table="all <of> them.csv")
    assert len(page.cards) == len(page.data["number"]) == len(page.data["bars"]) == 20
    assert "Showing 20 of 60 pictures; 40 are not on this page" in page.summary
    assert "all &lt;of&gt; them.csv lists all of them" in page.summary
    assert len(page.all("img")) == 20 + 10 + 6 + page.source.count('class="small-picture"')


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 40, 199, 200, 500])
def test_which_pictures_are_shown(tmp_path: Path, limit: int) -> None:
    rng = np.random.default_rng(1)
    classified = example(tmp_path / "a", n_queries=3)
    after = rng.dirichlet([0.3] * 3, 200)
    before = after.copy()
    before[:30] = before[:30, ::-1]
    classified = dataclasses.replace(
        classified, query=classified.query[:1] * 200, before=before, probabilities=after, novelty=None
    )
    shown = shown_queries(classified, limit)
    assert len(shown) == len(set(shown.tolist())) == min(limit, 200)
    confidence = after.max(1)
    assert (np.diff(confidence[shown]) >= 0).all()
    if 10 <= limit < 200:
        changed = np.flatnonzero(before.argmax(1) != after.argmax(1))
        doubtful = changed[np.argsort(confidence[changed])]
        assert set(doubtful[: limit // 2].tolist()) <= set(shown.tolist())
        assert set(np.argsort(confidence)[: limit // 4].tolist()) <= set(shown.tolist())
        assert limit == 10 or confidence[shown].max() > np.quantile(confidence, 0.8)
        assert set(after[shown].argmax(1).tolist()) == {0, 1, 2}


def test_support_of_many_classes_is_shown_in_part(tmp_path: Path) -> None:
    classified = example(tmp_path / "a", n_classes=4, n_shots=5)
    assert [len(numbers) for numbers in shown_support(classified, 20)] == [5] * 4
    assert [numbers.tolist() for numbers in shown_support(classified, 9)] == [[0, 1], [5, 6], [10, 11], [15, 16]]
    assert [len(numbers) for numbers in shown_support(classified, 2)] == [1] * 4


def test_a_picture_that_has_gone_gets_a_tile_with_words(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    classified.query[3].unlink()
    classified.query[4].write_bytes(b"no picture")
    classified.support[0].unlink()
    page = written(tmp_path, classified)
    assert sum("the file is gone or cannot be read" in card for card in page.cards) == 2
    gone, again = page.source.count("the file is gone or cannot be read"), page.source.count('class="small-picture"')
    assert gone >= 3 and len(page.all("img")) + gone == 24 + 6 + 10 + again


def test_one_query_one_class_and_nothing_to_tell(tmp_path: Path) -> None:
    one = dataclasses.replace(
        example(tmp_path / "a", n_classes=1, n_shots=1, n_queries=1), novelty=None, novelty_threshold=None, settings={}
    )
    page = written(tmp_path, one)
    assert "1 picture put into 1 class, by 1 labelled picture" in page.summary
    assert "None changed class" in page.summary and "lagged" not in page.summary
    assert 'name="flagged"' not in page.source and 'value="novelty"' not in page.source
    assert page.data["novelty"] is None and "100&nbsp;%" in page.cards[0]


def test_a_class_that_no_picture_is_of(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    probabilities = np.zeros_like(classified.probabilities)
    probabilities[:, 0] = 1
    page = written(tmp_path, dataclasses.replace(classified, before=probabilities, probabilities=probabilities))
    assert "None changed class" in page.summary
    assert 'data-label="After">24</td>' in page.source and page.source.count('data-label="After">0</td>') == 2
    assert "nan" not in page.source.split("<style>")[0] + "".join(re.findall("<svg.*?</svg>", page.source))


def test_features_that_are_all_alike(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    alike = dataclasses.replace(
        classified,
        support_features=np.ones_like(classified.support_features),
        query_features=np.ones_like(classified.query_features),
    )
    page = written(tmp_path, alike)
    assert not re.search("nan|inf", "".join(re.findall("<svg.*?</svg>", page.source)))


def test_the_same_input_gives_the_same_bytes_and_nothing_is_left_beside(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    first = written(tmp_path / "out" / "deep", classified).source
    assert written(tmp_path / "out" / "deep", classified).source == first
    assert [path.name for path in (tmp_path / "out" / "deep").iterdir()] == ["report.html"]


def test_an_interrupted_write_leaves_the_page_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classified = example(tmp_path / "a")
    first = written(tmp_path / "out", classified).source

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "out" / "report.html", dataclasses.replace(classified, settings={}))
    assert Page(tmp_path / "out" / "report.html").source == first
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_bad_arguments(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    with pytest.raises(ValueError, match="max_pictures=0; a report shows one picture or more"):
        write_report(tmp_path / "report.html", classified, max_pictures=0)
    with pytest.raises(ValueError, match="there are no queries to report on"):
        write_report(tmp_path / "report.html", dataclasses.replace(classified, query=()))


def decoded(small: bytes | None) -> Image.Image:
    assert small is not None
    return Image.open(io.BytesIO(small))


def test_thumbnails_are_upright_small_squares(tmp_path: Path) -> None:
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, :150, 0], pixels[:, 150:, 2] = 255, 255  # red on the left, blue on the right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: red comes to the top
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    small = decoded(thumbnail(tmp_path / "turned.jpg")).convert("RGB")
    assert small.size == (96, 96)
    top, bottom = np.asarray(small)[10, 48], np.asarray(small)[86, 48]
    assert top[0] > 200 > 50 > top[2] and bottom[2] > 200 > 50 > bottom[0]
    assert open_picture(tmp_path / "turned.jpg", at_least=90).size == (100, 150)  # half of it was decoded
    Image.new("L", (20, 31), 90).save(tmp_path / "small.png")
    assert decoded(thumbnail(tmp_path / "small.png")).size == (20, 20)
    Image.new("RGBA", (300, 100), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(decoded(thumbnail(tmp_path / "clear.png")).convert("L")).min() > 250


def test_small_pictures_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fewshot.classification.report.thumbnails.ROW_BYTES", 2000)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    for number, pixels in enumerate([noise // 128, noise // 128 + 90, noise]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    files = [*(tmp_path / f"{number}.png" for number in range(3)), tmp_path / "broken.png", tmp_path / "gone.png"]
    made = thumbnails(files)
    assert not (tmp_path / "cache").exists() and made[3:] == [None, None]
    assert thumbnails(files, remember=True) == made
    assert [(file.kind, file.name[:15]) for file in cached_files(tmp_path / "cache")] == [(PICTURES, "small-pictures-")]
    again = list[Path]()

    def counted(path: Path) -> bytes | None:
        again.append(path)
        return thumbnail(path)

    monkeypatch.setattr("fewshot.classification.report.thumbnails.thumbnail", counted)
    (tmp_path / "1.png").rename(tmp_path / "other.png")
    assert thumbnails([files[0], tmp_path / "other.png", *files[2:]], remember=True) == made
    assert sorted(again) == sorted(files[2:])  # too large for a row, and those that cannot be read
    (tmp_path / "other.png").write_bytes(files[0].read_bytes())
    assert thumbnails([tmp_path / "other.png"], remember=True) == made[:1]


def test_class_centres_are_weighted_means(tmp_path: Path) -> None:
    classified = example(tmp_path / "a")
    found = feature_map(classified)
    features = np.concatenate([classified.support_features, classified.query_features]).astype(float)
    pca = PCA(2, svd_solver="full").fit(features)
    assert found.share == pytest.approx(pca.explained_variance_ratio_.sum())
    for c in range(3):
        for weights, centres in (
            (classified.before, found.centres_before),
            (classified.probabilities, found.centres_after),
        ):
            total, weight = np.zeros(7), 0.0
            for i, label in enumerate(classified.support_labels):
                if label == c:
                    total, weight = total + classified.support_features[i], weight + 1
            for i in range(24):
                total, weight = total + weights[i, c] * classified.query_features[i], weight + weights[i, c]
            np.testing.assert_allclose(centres[c], pca.transform((total / weight)[None])[0], atol=1e-6)


def test_a_hundred_classes_have_markers_of_their_own() -> None:
    assert len({marker(label) for label in range(104)}) == 104
    assert len({marker(label)[1] for label in range(7)}) == 7  # not by colour alone


def test_labels_of_the_map_keep_clear_of_each_other_and_inside() -> None:
    centres = np.array([[100.0, 100.0], [104.0, 112.0], [20.0, 20.0], [630.0, 390.0]])
    texts = ["walking stick", "sea slug", "日本語の長い名前", "lion"]
    found = label_positions(centres, texts, width=640, height=400)
    half = np.array([11 * len(text) / 2 for text in texts]) * [1, 1, 2, 1]
    assert (found[:, 0] - half >= 0).all() and (found[:, 0] + half <= 640).all()
    for i in range(4):
        for j in range(i):
            aside = abs(found[i, 0] - found[j, 0]) >= half[i] + half[j]
            assert aside or abs(found[i, 1] - found[j, 1]) >= 18


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as the Web Content Accessibility Guidelines define it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_the_contrast_that_wcag_asks_for() -> None:
    light, dark = (dict(re.findall("--([a-z0-9-]+): (#[0-9a-f]+)", block)) for block in
                   re.findall(r":root \{(.*?)\}", style(), re.DOTALL))  # fmt: skip
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        text = [
            ("ink", "paper"),
            ("faint", "paper"),
            ("ink", "soft"),
            ("accent", "paper"),
            ("mark", "mark-paper"),
            ("flag", "flag-paper"),
            ("yours", "yours-paper"),
            ("ink", "yours-paper"),
            ("faint", "soft"),
        ]
        shapes = [(f"k{i}", "paper") for i in range(8)] + [("control", "paper"), ("control", "soft")]
        for pairs, least in ((text, 4.5), (shapes, 3.0)):
            for front, back in pairs:
                bright, dim = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= least, (front, back, colours[front])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Classified]:
    """The address of a page, and what it was made of."""
    folder = tmp_path_factory.mktemp("report")
    classified = example(folder / "a", n_classes=4, n_queries=40)
    write_report(folder / "report.html", classified)
    return (folder / "report.html").as_uri(), classified


SHOWN = (
    "[...document.querySelectorAll('#grid li')].filter(e => !e.hidden).map(e => e.querySelector('.name').textContent)"
)


def test_the_page_runs_and_asks_for_nothing(browser: Browser, report: tuple[str, Classified]) -> None:
    browser.open(report[0])
    assert browser.run("document.querySelector('#count').textContent") == "Showing all 40 pictures."
    assert browser.complaints == []
    assert {address for address in browser.requested if not address.startswith(("data:", "about:"))} == {report[0]}
    whole = "[...document.images].map(e => { e.loading = 'eager'; return e.decode().then(() => e.naturalWidth > 0) })"
    assert browser.run(f"Promise.all({whole}).then(all => all.every(Boolean))")
    assert browser.run("[...document.querySelectorAll('input, select')].every(e => e.labels.length === 1)")
    assert browser.run("[...document.querySelectorAll('button')].every(e => e.type === 'button')")
    assert browser.run("[...document.querySelectorAll('li button')].every(e => !e.disabled)")


def test_a_page_of_rows_shows_their_texts_and_finds_them(browser: Browser, tmp_path: Path) -> None:
    classified = example(tmp_path / "a", n_queries=12)
    rows = [path.name for path in classified.query]
    texts = (tuple(f"known {i}" for i in range(6)), tuple(f"<b>said</b> {i} " + "so " * 100 for i in range(12)))
    names = {"support": tuple(map(str, range(6))), "query": tuple(rows), "query_names": tuple(rows)}
    written(tmp_path, dataclasses.replace(classified, texts=texts, **names))
    browser.open(f"{(tmp_path / 'report.html').as_uri()}#text=b%3E%203")
    assert browser.run("document.querySelector('#count').textContent") == "Showing 1 of 12 rows."
    assert browser.run(SHOWN) == ["q3.png"] and browser.run("document.images.length") == 0
    browser.run("document.querySelector('#grid li:not([hidden]) button').click()")
    assert browser.run("document.querySelector('.frame').textContent").startswith("<b>said</b> 3 so so")
    assert browser.complaints == []


def test_pictures_that_are_not_on_the_page_are_counted_too(browser: Browser, tmp_path: Path) -> None:
    written(tmp_path, example(tmp_path / "a", n_queries=30), max_pictures=20)
    count = "document.querySelector('#count').textContent"
    browser.open((tmp_path / "report.html").as_uri())
    assert browser.run(count) == "Showing 20 of 30 pictures; \u2068predictions.csv\u2069 lists all."
    browser.run("document.querySelector('[name=text]').value = 'nothing'")
    browser.run("document.querySelector('#filters').dispatchEvent(new Event('input'))")
    told = "Showing 0 of 20 pictures on this page; 10 more are in \u2068predictions.csv\u2069 alone."
    assert browser.run(count) == told


@pytest.mark.parametrize(
    "address",
    ["class=2", "changed=1", "flagged=1", "class=3&changed=1", "min=60", "min=40&max=70", "text=Q1", "text=nothing",
     "class=99&order=nonsense&picture=0"],
)  # fmt: skip
def test_filters_by_the_address(browser: Browser, report: tuple[str, Classified], address: str) -> None:
    classified = report[1]
    given = dict(part.split("=") for part in address.split("&"))
    confidence = np.round(100 * classified.probabilities.max(1))
    keep = (confidence >= int(given.get("min", 0))) & (confidence <= int(given.get("max", 100)))
    if given.get("class", "99") != "99":
        keep &= classified.predicted == int(given["class"]) - 1
    if "changed" in given:
        keep &= classified.predicted != classified.predicted_before
    if "flagged" in given:
        keep &= classified.flagged
    keep &= np.array([given.get("text", "").lower() in name for name in classified.query_names])
    browser.open(f"{report[0]}#{address}")
    assert sorted(browser.run(SHOWN)) == sorted(np.array(classified.query_names)[keep].tolist())
    told = browser.run("document.querySelector('#count').textContent")
    assert told == ("Showing all 40 pictures." if keep.all() else f"Showing {keep.sum()} of 40 pictures.")
    for name in ("before", "after"):
        drawn = browser.run(f"document.querySelectorAll('#map-{name} .queries > :not(.off)').length")
        assert drawn == keep.sum()
    assert browser.complaints == []


def test_orders(browser: Browser, report: tuple[str, Classified]) -> None:
    classified = report[1]
    names = np.array(classified.query_names)
    confidence = classified.probabilities.max(1)
    moved = np.round(500 * np.abs(classified.probabilities - classified.before).sum(1))
    assert classified.novelty is not None
    browser.open(report[0])
    assert browser.run(SHOWN) == names[np.argsort(confidence)].tolist()
    for order, expected in (
        ("name", sorted(names, key=lambda name: int(re.findall("[0-9]+", name)[0]))),
        ("moved", names[np.lexsort((confidence, -moved))].tolist()),
        ("novelty", names[np.argsort(-classified.novelty)].tolist()),
        ("class", names[np.lexsort((confidence, classified.predicted))].tolist()),
        ("sure", names[np.argsort(-confidence)].tolist()),
        ("unsure", names[np.argsort(confidence)].tolist()),
    ):
        browser.run(
            f"(e => {{ e.value = '{order}'; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
            "(document.querySelector('select[name=order]'))"
        )
        assert browser.run(SHOWN) == list(expected), order
        assert browser.run("location.hash") == ("" if order == "unsure" else f"#order={order}")


def test_a_picture_is_opened_and_closed_by_keyboard(browser: Browser, report: tuple[str, Classified]) -> None:
    classified = report[1]
    order = np.argsort(classified.probabilities.max(1))
    browser.open(report[0])
    browser.run("document.querySelector('#all').focus()")
    browser.press("Tab")
    focused = "document.activeElement.querySelector('.name')?.textContent"
    assert browser.run(focused) == classified.query_names[order[0]]
    browser.press("ArrowRight", "ArrowRight")
    assert browser.run(focused) == classified.query_names[order[2]]
    browser.press("ArrowDown", "ArrowUp")
    assert browser.run(focused) == classified.query_names[order[2]]
    browser.press("End", "Home", "ArrowRight", "Enter")
    i = order[1]
    assert browser.run("document.querySelector('#larger').open")
    assert browser.run("document.querySelector('#larger-name').textContent") == classified.query_names[i]
    assert browser.run("location.hash") == f"#picture={i + 1}"
    cells = browser.run(
        "[...document.querySelectorAll('#larger-bars tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    ranked = np.argsort(-classified.probabilities[i])
    percent = [
        [f"{round(1000 * row[c]) / 10:.1f}\xa0%" for row in (classified.before[i], classified.probabilities[i])]
        for c in ranked
    ]
    assert cells == [
        [f"\u2068{classified.class_names[c]}\u2069", *both] for c, both in zip(ranked, percent, strict=True)
    ]
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('#larger-name').textContent") == classified.query_names[order[2]]
    browser.press("Escape")
    assert not browser.run("document.querySelector('#larger').open")
    assert browser.becomes(focused, classified.query_names[order[2]])
    browser.press("Tab")  # leaves the grid: it is one stop
    assert browser.run("!document.querySelector('#grid').contains(document.activeElement)")
    assert browser.complaints == []


def test_a_picture_is_opened_by_the_address(browser: Browser, report: tuple[str, Classified]) -> None:
    browser.open(f"{report[0]}#picture=7")
    assert browser.run("document.querySelector('#larger-name').textContent") == report[1].query_names[6]


def test_links_to_parts_of_the_page_keep_the_filters(browser: Browser, report: tuple[str, Classified]) -> None:
    browser.open(f"{report[0]}#class=2")
    shown = browser.run(SHOWN)
    browser.run("document.querySelector('nav a[href=\"#map\"]').click()")
    assert browser.run("new Promise(done => setTimeout(() => done(location.hash), 50))") == "#map"
    assert browser.run(SHOWN) == shown != []


def test_the_map_by_keyboard_and_pointer(browser: Browser, report: tuple[str, Classified]) -> None:
    names = report[1].query_names
    browser.open(report[0])
    browser.run("document.querySelector('#map-after').parentNode.focus()")
    browser.press("ArrowRight")
    first = browser.run("document.querySelector('.tip bdi').textContent")
    browser.press("ArrowLeft", "ArrowDown")
    assert browser.run("document.querySelector('#map-status').textContent") != first
    browser.press("Enter")
    assert browser.run("document.querySelector('#larger').open")
    browser.press("Escape")
    # where the least confident query lies
    x, y = browser.run(
        "(() => { const e = document.querySelector('#map-before'); e.scrollIntoView({behavior: 'instant'});"
        "const b = e.getBoundingClientRect(), s = b.width / e.viewBox.baseVal.width;"
        "const [x, y] = JSON.parse(document.querySelector('#data').textContent).query[0];"
        "return [b.left + x * s, b.top + y * s] })()"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    told = browser.run("document.querySelector('#before .tip bdi').textContent")
    least = int(report[1].probabilities.max(1).argmin())
    was = report[1].class_names[report[1].predicted_before[least]]
    assert told == f"\u2068{names[least]}\u2069: \u2068{was}\u2069"
    browser.run("document.querySelector('#map-only-before').click()")
    assert browser.run("getComputedStyle(document.querySelector('#after')).display") == "none"
    assert browser.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_nothing_sticks_out(browser: Browser, tmp_path: Path, scheme: str, size: tuple[int, int]) -> None:
    classified = with_nasty_names(example(tmp_path / "a", n_classes=len(NASTY)))
    classified.query[0].unlink()
    write_report(tmp_path / "report.html", classified)
    browser.open((tmp_path / "report.html").as_uri() + "#picture=1", width=size[0], height=size[1],
                 media={"prefers-color-scheme": scheme})  # fmt: skip
    assert browser.run("document.documentElement.scrollWidth") == size[0]
    assert browser.run("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('#larger'))")
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 26, 29)"}[scheme]
    assert browser.run("getComputedStyle(document.body).backgroundColor") == paper
    assert browser.run("document.title") == "Classified pictures" and browser.complaints == []
    assert browser.run("document.querySelectorAll('#grid .gone').length") == 1
    readable = [re.sub("[\0\n\u202e\udcff]", "\ufffd", name) for name in NASTY]
    assert set(readable) <= set(browser.run(SHOWN))


def test_without_javascript_pictures_and_tables_are_there(browser: Browser, report: tuple[str, Classified]) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report[0])
        assert "Without JavaScript" in browser.run("document.querySelector('noscript').innerText")
        assert browser.run("document.querySelector('#filters').checkVisibility()") is False
        assert len(browser.run(SHOWN)) == 40
        assert browser.run("document.querySelectorAll('.classes tbody tr').length") == 4
        assert browser.run("document.querySelectorAll('.map .queries > *').length") == 80
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
def test_two_thousand_real_pictures_open_soon(browser: Browser, tmp_path: Path, data_root: Path) -> None:
    paths = sorted((data_root / "tiny_imagenet_fs" / "test").glob("*/*"))[:2000]
    large = []
    for i, path in enumerate(paths):
        large.append(tmp_path / f"{i}.jpg")
        Image.open(path).convert("RGB").resize((200, 150)).save(large[-1])
    classified = example(tmp_path / "a", n_classes=20, n_queries=2000)
    classified = dataclasses.replace(classified, query=tuple(large))
    write_report(tmp_path / "report.html", classified)
    assert (tmp_path / "report.html").stat().st_size <= 12e6
    browser.open((tmp_path / "report.html").as_uri() + "#changed=1")
    assert browser.run("document.querySelector('#count').textContent").endswith("of 2,000 pictures.")
    assert browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd") < 10_000
