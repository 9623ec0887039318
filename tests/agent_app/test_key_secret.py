"""The HMAC's secret of the API keys moves on, and keys that are used move with it."""

from app_process import AppProcess

OLD, NEW = "0123456789abcdef0123456789abcdef", "f" * 32


async def answers(app: AppProcess, *keys: str) -> list[int]:
    """Start the app as it is configured now and show it each key."""
    await app.start()
    try:
        asked = [
            await app.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            for key in keys
        ]
        return [answer.status_code for answer in asked]
    finally:
        await app.end()


def configure(app: AppProcess, secret: str, other: str) -> None:
    (app.folder / "credentials" / "key_secret").write_text(secret)
    (app.folder / "credentials" / "key_secret_other").write_text(other)


async def test_keys_that_are_used_between_two_rotations_outlive_both(prepared: AppProcess) -> None:
    used, unused = (prepared.run("keys", "create", "--name", name) for name in ("used", "unused"))
    assert await answers(prepared, used) == [200]
    configure(prepared, OLD, NEW)  # an instance that is told of what is to come
    assert await answers(prepared, used) == [200]
    configure(prepared, NEW, OLD)
    assert await answers(prepared, used, used + "x") == [200, 401]
    configure(prepared, OLD, NEW)  # one beside it, not yet restarted, or all of it taken back
    assert await answers(prepared, used) == [200]
    configure(prepared, NEW, OLD)
    made = prepared.run("keys", "create", "--name", "made")
    assert await answers(prepared, used, made) == [200, 200]
    configure(prepared, NEW, "")
    assert await answers(prepared, used, made, unused) == [200, 200, 401]


async def test_a_rotated_key_keeps_its_overlap_across_the_secrets(prepared: AppProcess) -> None:
    before = prepared.run("keys", "create", "--name", "rotated")
    after = prepared.run("keys", "rotate", "rotated", "--overlap", "1h")
    configure(prepared, NEW, OLD)
    assert await answers(prepared, before, after) == [200, 200]
    configure(prepared, NEW, "")
    assert await answers(prepared, before, after) == [200, 200]
