import itertools, pytest, asyncio
from tests.client.test_faults import *  # noqa
pytestmark = pytest.mark.asyncio
@pytest.mark.parametrize("base", range(4))
@pytest.mark.parametrize("drop", [0.33, 0.45])
async def test_probe(server, drop, base):
    p = await over(server, (Line(drop=drop, seed=base*1000+seed) for seed in itertools.count()), "websocket")
    print(p.counts)
