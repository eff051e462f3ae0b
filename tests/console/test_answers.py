"""Answering what an agent asks: choices, free text, a form."""

import pytest
from playwright.async_api import Browser, expect

from tests.console.deciding import HOSTILE, Desk, ended, looking, start
from tests.testkit.chromium import shot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_a_choice(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "choose")
    async with looking(browser, desk, run_id) as page:
        form = page.get_by_role("form", name="Which test do you mean?")
        await expect(form.get_by_role("button", name="Answer")).to_be_disabled()
        await shot(page, "answer-choices")
        # What it is shown as is not what it is: the answer is the choice itself.
        await form.get_by_role("radio").nth(2).check()
        await form.get_by_role("button", name="Answer").click()
        final = await ended(desk, run_id)
        await expect(form).to_be_hidden()
    assert final["result"] == HOSTILE


async def test_free_text(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "free")
    async with looking(browser, desk, run_id) as page:
        await page.get_by_label("Your answer").fill("Midstream\nor so")
        await page.get_by_role("button", name="Answer").click()
        final = await ended(desk, run_id)
    assert final["result"] == "Midstream\nor so"


async def test_a_form_from_a_schema(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "form")
    async with looking(browser, desk, run_id) as page:
        form = page.get_by_role("form", name="Where to?")
        await form.get_by_label("city").fill("X")
        await form.get_by_label("nights").fill("40")
        await form.get_by_role("button", name="Answer").click()
        await expect(form).to_contain_text("This needs 2 characters or more.")
        await expect(form).to_contain_text("This must be at most 14.")
        await expect(form.get_by_role("button", name="Answer")).to_be_disabled()
        await shot(page, "answer-form")
        await form.get_by_label("city").fill("Ghent")
        await form.get_by_label("nights").fill("3")
        await form.get_by_role("button", name="Add breakfast").click()
        await form.get_by_label("Yes").check()
        await form.get_by_role("button", name="Answer").click()
        final = await ended(desk, run_id)
    assert final["result"] == str({"city": "Ghent", "nights": 3, "breakfast": True})


async def test_an_answer_elsewhere_takes_the_form_away(browser: Browser, desk: Desk) -> None:
    run_id = await start(desk, "choose")
    async with looking(browser, desk, run_id) as page:
        form = page.get_by_role("form", name="Which test do you mean?")
        await expect(form).to_be_visible()
        command = {"type": "input.respond", "payload": {"input_id": "input_1", "answer": "login"}}
        answer = await desk.server.http.post(f"/v1/runs/{run_id}/commands", json=command)
        assert answer.status_code == 200, answer.text
        await expect(form).to_be_hidden()
