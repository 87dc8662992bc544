"""Proofs of work over HTTP: each counts once over all gateways, for its own customer and sale."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import altcha
import orjson
import pytest

from commerce.kernel.clock import SystemClock
from commerce.screening.errors import ProofInvalid
from config.screening import ScreeningSettings
from config.settings import Settings
from gateway.proof_of_work import ProofOfWork
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.rooms import TestRoom, open_room
from tests.support.screening_gateway import SCREENING, give_scores, join_room, read_metric, solve

MakeSettings = Callable[..., Settings]


async def _open_pair(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, **screening: Any
) -> tuple[TestRoom, Settings]:
    room = await open_room(shop, sale_id)
    await give_scores(shop, sale_id, {"cyd": 50, "dot": 50})
    return room, make_settings(screening={**SCREENING, "proof_of_work_min_score": 50, **screening})


async def test_proof_counts_once_over_all_gateways(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    _, settings = await _open_pair(make_settings, shop, sale_id)
    async with open_gateway(settings) as gateway, open_gateway(settings) as other:
        challenge = (await join_room(gateway, sale_id, "cyd")).body["challenge"]
        assert challenge["parameters"]["algorithm"] == "SHA-256"
        proof = {"Proof-Of-Work": solve(challenge)}
        answers = await asyncio.gather(
            *(join_room(part, sale_id, "cyd", slow, **proof) for part in (gateway, other) for slow in (False, True))
        )
        assert sorted(answer.status for answer in answers) == [200, 403, 403, 403]
        refused = next(answer for answer in answers if answer.status == 403)
        assert refused.code == "proof_invalid"
        assert "used before" in refused.body["detail"]
        fresh = {"Proof-Of-Work": solve(refused.body["challenge"])}
        assert (await join_room(other, sale_id, "cyd", **fresh)).status == 200, "a refusal brings a new challenge"
        assert read_metric("floodgate_proofs_remembered", sale=sale_id) == 2
    async with open_gateway(settings) as restarted:
        assert (await join_room(restarted, sale_id, "cyd", **proof)).code == "proof_invalid"


async def test_proof_of_others_forged_expired_or_wrong_is_refused(
    make_settings: MakeSettings, shop: CliServices, sale_id: str, sale_prefix: str
) -> None:
    await open_room(shop, f"{sale_prefix}-other")
    await give_scores(shop, f"{sale_prefix}-other", {"cyd": 50})
    _, settings = await _open_pair(make_settings, shop, sale_id)
    async with open_gateway(settings) as gateway:
        own_challenge = (await join_room(gateway, sale_id, "cyd")).body["challenge"]
        dots = (await join_room(gateway, sale_id, "dot")).body["challenge"]
        elsewhere = (await join_room(gateway, f"{sale_prefix}-other", "cyd")).body["challenge"]
        stolen = orjson.loads(orjson.dumps(dots))
        stolen["parameters"]["data"]["user_id"] = "cyd"
        easy = orjson.loads(orjson.dumps(own_challenge))
        easy["parameters"]["keyPrefix"] = "0"
        del easy["parameters"]["keySignature"]
        own = altcha.create_challenge(
            "SHA-256", 10, data=own_challenge["parameters"]["data"], counter=3, hmac_secret="guess"
        )
        wrong = {"challenge": own_challenge, "solution": {"counter": 1, "derivedKey": "00" * 32}}
        expired = _expired_challenge(gateway, settings, sale_id)
        proofs = {
            "of another customer": solve(dots),
            "of another sale": solve(elsewhere),
            "with changed data": solve(stolen),
            "made easy": solve(easy),
            "signed by somebody else": solve(own.to_dict()),
            "not solved": base64.b64encode(orjson.dumps(wrong)).decode(),
            "expired": solve(expired),
            "no base64": "!!!",
            "no JSON": base64.b64encode(b"{").decode(),
            "another JSON": base64.b64encode(b'{"challenge": [], "solution": 1}').decode(),
            "deep": base64.b64encode(b"[" * 1_000).decode(),
        }
        for slow in (False, True):
            for name, proof in proofs.items():
                refused = await join_room(gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": proof})
                assert (refused.status, refused.code) == (403, "proof_invalid"), name
                assert refused.body["challenge"]["parameters"]["data"] == {"sale_id": sale_id, "user_id": "cyd"}
            long = await join_room(gateway, sale_id, "cyd", slow, **{"Proof-Of-Work": "A" * 2_049})
            assert (long.status, long.code) == (422, "invalid")
        assert (await join_room(gateway, sale_id, "cyd", **{"Proof-Of-Work": solve(own_challenge)})).status == 200


@pytest.mark.parametrize("name", ["data", "nonce", "salt", "keyPrefix", "cost"])
@pytest.mark.parametrize("forged", [[0.1] * 200, {"a": {"a": {}}}, {str(number): 0 for number in range(99)}, 0.1, True])
def test_forged_proof_costs_little(monkeypatch: pytest.MonkeyPatch, name: str, forged: object) -> None:
    """The library would take milliseconds to write these parameters in its canonical form."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError(name)

    settings = ScreeningSettings(enabled=True, proof_attempts=20)
    proofs = ProofOfWork("k" * 32, None, settings, SystemClock())  # type: ignore[arg-type]
    challenge = proofs._create_challenge("a-sale", "cyd")
    proof = solve(challenge)
    assert proofs.verify("a-sale", "cyd", proof).expires_ms
    payload = orjson.loads(base64.b64decode(proof))
    payload["challenge"]["parameters"][name] = forged
    monkeypatch.setattr("gateway.proof_of_work.verify_solution", fail)
    with pytest.raises(ProofInvalid):
        proofs.verify("a-sale", "cyd", base64.b64encode(orjson.dumps(payload)).decode())


def _expired_challenge(gateway: TestGateway, settings: Settings, sale_id: str) -> dict[str, Any]:
    """Return a challenge of this shop whose time is over."""

    class EarlyClock:
        def now_ms(self) -> int:
            return gateway.services.clock.now_ms() - 301_000

    proofs = gateway.services.room_entrance._proofs
    early = ProofOfWork(None, proofs._link, settings.screening, EarlyClock())  # type: ignore[arg-type]
    early._secrets = proofs._secrets
    return early._create_challenge(sale_id, "cyd")


async def test_too_many_proofs_are_refused_until_some_expire(
    make_settings: MakeSettings, shop: CliServices, sale_id: str
) -> None:
    room, settings = await _open_pair(make_settings, shop, sale_id, proofs_per_sale=1)
    async with open_gateway(settings) as gateway:
        for user, status in (("cyd", 200), ("dot", 503)):
            challenge = (await join_room(gateway, sale_id, user)).body["challenge"]
            assert (await join_room(gateway, sale_id, user, **{"Proof-Of-Work": solve(challenge)})).status == status
        await shop.redis.zadd(room.keys.proofs, dict.fromkeys(await shop.redis.zrange(room.keys.proofs, 0, -1), 1))
        challenge = (await join_room(gateway, sale_id, "dot")).body["challenge"]
        assert (await join_room(gateway, sale_id, "dot", **{"Proof-Of-Work": solve(challenge)})).status == 200
        assert 0 < await shop.redis.pttl(room.keys.proofs) <= 420_000
