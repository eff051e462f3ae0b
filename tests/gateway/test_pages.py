"""The console and the protocol's page, as a browser and as a program are given them."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.routing import Mount

from midstream.gateway import pages
from midstream_protocol.asyncapi import text as asyncapi_text
from tests.gateway.conftest import House, Open
from tests.testkit.served import served

pytestmark = pytest.mark.asyncio

INDEX = "<!doctype html><title>Midstream</title>" + "<p>words</p>" * 100
SCRIPT = "console.log('a part of the page');" * 100
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "console"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "docs.html").write_text("<!doctype html><title>The protocol</title>")
    (folder / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "assets" / "index-B1x_9.js").write_text(SCRIPT)
    (folder / "assets" / ".hidden").write_text("x")
    (folder / "fingerprint.txt").write_text("x")
    (tmp_path / "secret.txt").write_text("not for anybody")
    monkeypatch.setattr(pages.Pages.__init__, "__defaults__", (folder,))
    return folder


@pytest_asyncio.fixture
async def console(built: Path, open_house: Open) -> House:
    return await open_house()


async def test_the_page_comes_without_a_token_and_under_a_strict_policy(built: Path, open_house: Open) -> None:
    house = await open_house(token="secret")
    answer = await house.server.http.get("/", headers=BROWSER)
    assert answer.status_code == 200
    assert answer.text == INDEX
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
    assert (await house.server.http.get("/v1/runs")).status_code == 401


@pytest.mark.parametrize(
    ("path", "media_type", "kept"),
    [
        ("/docs", "text/html; charset=utf-8", "no-cache"),
        ("/favicon.svg", "image/svg+xml", "no-cache"),
        ("/assets/index-B1x_9.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
    ],
)
async def test_each_file_has_its_type_and_is_kept_as_long_as_it_is_right(
    console: House, path: str, media_type: str, kept: str
) -> None:
    answer = await console.server.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == kept
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    head = await console.server.http.head(path)
    assert head.status_code == 200
    assert head.content == b""
    same = {"content-type", "content-length", "cache-control", "etag"}
    assert {name: head.headers[name] for name in same} == {name: answer.headers[name] for name in same}


async def test_what_a_browser_has_already_is_not_sent_again(console: House) -> None:
    first = await console.server.http.get("/", headers=BROWSER)
    known = BROWSER | {"if-none-match": first.headers["etag"]}
    again = await console.server.http.get("/", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


async def test_a_page_that_was_built_anew_is_seen_without_a_restart(console: House, built: Path) -> None:
    first = await console.server.http.get("/", headers=BROWSER)
    (built / "index.html").write_text(INDEX + "more")
    changed = await console.server.http.get("/", headers=BROWSER | {"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.text.endswith("more")


async def test_another_version_is_another_even_where_an_installer_gave_it_the_same_time(
    built: Path, open_house: Open
) -> None:
    path, old, new = built / "index.html", await open_house(), await open_house()
    first = await old.server.http.get("/", headers=BROWSER)
    at = path.stat().st_mtime_ns
    path.write_text(INDEX.replace("words", "WORDS"))
    os.utime(path, ns=(at, at))
    changed = await new.server.http.get("/", headers=BROWSER | {"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert "WORDS" in changed.text


@pytest.mark.parametrize(
    ("offered", "packed"),
    [("gzip, deflate, br", True), ("identity", False), ("", False), ("br, gzip;q=0", False), ("*, GZIP ; q=0.5", True)],
)
async def test_text_is_compressed_for_who_takes_that(console: House, offered: str, packed: bool) -> None:
    path = "/assets/index-B1x_9.js"
    async with console.server.http.stream("GET", path, headers={"accept-encoding": offered}) as answer:
        body = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
    assert "accept-encoding" in answer.headers["vary"]
    assert (gzip.decompress(body) if packed else body).decode() == SCRIPT


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/none.js",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2e%2e",
        "/assets/.hidden",
        "/assets/a%00b.js",
        "/assets/" + "a" * 5000 + ".js",
        "/fingerprint.txt",
        "/index.html.bak",
        "/manifest.webmanifest",
    ],
)
async def test_nothing_else_of_the_disk_can_be_had(console: House, path: str) -> None:
    answer = await console.server.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_only_reading_is_for_pages(console: House) -> None:
    answer = await console.server.http.post("/", json={})
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert "GET" in answer.headers["allow"]


async def test_the_door_is_the_same_for_pages(console: House) -> None:
    foreign = await console.server.http.get("/", headers={"host": "attacker.example"})
    assert foreign.status_code == 403
    assert "title" not in foreign.text


async def test_a_program_is_told_where_everything_is(console: House) -> None:
    answer = await console.server.http.get("/", headers={"accept": "application/json"})
    assert answer.status_code == 200
    assert answer.headers["vary"] == "accept"
    links = answer.json()["links"]
    assert links["runs"] == "/v1/runs"
    for name in ("agents", "schema", "asyncapi", "docs", "runs", "console"):
        assert (await console.server.http.get(links[name], headers=BROWSER)).status_code == 200


async def test_below_a_prefix_the_page_is_the_same_and_links_are_its_own(console: House) -> None:
    async with served(Starlette(routes=[Mount("/agents", console.gateway)])) as outer:
        assert (await outer.http.get("/agents/", headers=BROWSER)).text == INDEX
        assert (await outer.http.get("/agents/assets/index-B1x_9.js")).text == SCRIPT
        assert (await outer.http.get("/agents/favicon.svg")).status_code == 200
        assert (await outer.http.get("/agents/docs")).status_code == 200
        links = (await outer.http.get("/agents/", headers={"accept": "application/json"})).json()["links"]
        assert (await outer.http.get(links["schema"])).status_code == 200


async def test_a_slash_too_many_leads_to_the_page(console: House) -> None:
    answer = await console.server.http.get("/docs/", headers=BROWSER)
    assert (answer.status_code, answer.headers["location"]) == (308, "../docs")
    answer = await console.server.http.get("/docs/", headers=BROWSER, follow_redirects=True)
    assert "The protocol" in answer.text


async def test_a_checkout_without_it_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_house: Open
) -> None:
    monkeypatch.setattr(pages.Pages.__init__, "__defaults__", (tmp_path / "nothing",))
    house = await open_house()
    for path in ("/", "/docs"):
        answer = await house.server.http.get(path, headers=BROWSER)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "make console" in answer.text
        assert "content-security-policy" in answer.headers
    assert (await house.server.http.get("/", headers={"accept": "application/json"})).status_code == 200
    assert not pages.is_built(tmp_path / "nothing")


async def test_switched_off_there_is_no_page_and_the_api_is_the_same(built: Path, open_house: Open) -> None:
    house = await open_house(console=False)
    for path in ("/", "/docs", "/favicon.svg", "/assets/index-B1x_9.js"):
        answer = await house.server.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert (await house.server.http.get("/v1/runs")).status_code == 200


async def test_the_protocol_is_served_as_an_asyncapi_document(open_house: Open) -> None:
    house = await open_house(token="secret")
    answer = await house.server.http.get("/v1/asyncapi")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == asyncapi_text()
    assert re.fullmatch(r"3\.\d+\.\d+", json.loads(answer.text)["asyncapi"])
