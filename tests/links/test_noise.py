"""The synthetic device's WireGuard: published vectors, both roles, cookies, and what it refuses."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from chukan.ops.bench import noise
from chukan.ops.bench.noise import NoiseError, Party

PSK = bytes(range(32))
LADIES = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)


def couple(psk: bytes = PSK, other_psk: bytes = PSK) -> tuple[Party, Party]:
    """Return two ends that know each other."""
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    publics = [key.public_key().public_bytes_raw() for key in (one, two)]
    return Party(one, publics[1], psk), Party(two, publics[0], other_psk)


def changed(message: bytes, place: int) -> bytes:
    """Return a message with one bit of one byte turned round."""
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]


def test_hchacha20_gives_the_drafts_subkey() -> None:
    # draft-irtf-cfrg-xchacha-03, section 2.2.1
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    subkey = noise.hchacha20(bytes(range(32)), nonce)
    assert subkey.hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"


def test_xchacha20_poly1305_gives_the_drafts_seal() -> None:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    bound = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = noise.xchacha_seal(key, nonce, LADIES, bound)
    assert sealed.hex() == (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )
    assert noise.xchacha_open(key, nonce, sealed, bound) == LADIES
    with pytest.raises(NoiseError):
        noise.xchacha_open(key, nonce, sealed, bound + b"x")


def test_blake2s_gives_the_rfcs_digest() -> None:
    # RFC 7693, appendix B
    assert noise.blake2s(b"a", b"bc").hex() == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"


def test_an_instant_is_labelled_in_tai64n() -> None:
    # The TAI64N label of 1970-01-01T00:00:00Z, by D. J. Bernstein's "libtai".
    assert noise.tai64n(0).hex() == "400000000000000a00000000"
    assert noise.tai64n(1_000_000_001).hex() == "400000000000000b00000001"
    assert noise.tai64n(999_999_999) < noise.tai64n(1_000_000_000)


def test_both_ends_come_to_one_session_and_speak_in_both_directions() -> None:
    device, gateway = couple()
    message, waiting = device.initiate(7, 1)
    assert len(message) == noise.INITIATION_SIZE
    response, theirs = gateway.answer(message, 9)
    assert len(response) == noise.RESPONSE_SIZE
    ours = device.finish(waiting, response)
    assert theirs.open(ours.seal(b"there")).rstrip(b"\0") == b"there"
    assert ours.open(theirs.seal(b"back")).rstrip(b"\0") == b"back"
    keepalive = ours.seal()
    assert (len(keepalive), theirs.open(keepalive)) == (noise.OVERHEAD, b"")


def test_a_data_message_serves_once() -> None:
    device, gateway = couple()
    message, waiting = device.initiate(7, 1)
    response, theirs = gateway.answer(message, 9)
    sealed = device.finish(waiting, response).seal(b"once")
    theirs.open(sealed)
    with pytest.raises(NoiseError):
        theirs.open(sealed)


def test_an_initiation_serves_once_and_an_older_one_not_at_all() -> None:
    device, gateway = couple()
    older, newer = device.initiate(1, 1)[0], device.initiate(2, 2)[0]
    gateway.answer(newer, 9)
    for message in (newer, older):
        with pytest.raises(NoiseError):
            gateway.answer(message, 9)


def test_without_the_same_preshared_key_there_is_no_session() -> None:
    device, gateway = couple(PSK, bytes(32))
    message, waiting = device.initiate(7, 1)
    response, _ = gateway.answer(message, 9)
    with pytest.raises(NoiseError):
        device.finish(waiting, response)


def test_a_stranger_is_not_answered() -> None:
    device, gateway = couple()
    stranger = Party(X25519PrivateKey.generate(), gateway.public, PSK)
    with pytest.raises(NoiseError):
        gateway.answer(stranger.initiate(7, 1)[0], 9)
    lost = Party(X25519PrivateKey.generate(), device.public, PSK)
    with pytest.raises(NoiseError):
        lost.answer(device.initiate(8, 2)[0], 9)


# One byte of each part that is sealed or bound: type, sender, ephemeral, static, timestamp, first mac.
@pytest.mark.parametrize("place", [0, 4, 8, 40, 88, 116])
def test_a_changed_initiation_is_refused(place: int) -> None:
    device, gateway = couple()
    with pytest.raises(NoiseError):
        gateway.answer(changed(device.initiate(7, 1)[0], place), 9)


@pytest.mark.parametrize("place", [0, 8, 12, 44, 60])
def test_a_changed_response_is_refused(place: int) -> None:
    device, gateway = couple()
    message, waiting = device.initiate(7, 1)
    response, _ = gateway.answer(message, 9)
    with pytest.raises(NoiseError):
        device.finish(waiting, changed(response, place))


def test_a_cookie_is_shown_for_two_minutes() -> None:
    device, gateway = couple()
    message, waiting = device.initiate(7, 1, 1000.0)
    assert message[-16:] == bytes(16)
    cookie = bytes(range(16))
    reply = noise.cookie_reply(gateway.public, bytes(range(24)), cookie, message)
    assert len(reply) == noise.COOKIE_SIZE
    device.learn(waiting, reply, 1000.0)
    for now_s, shown in ((1119.0, True), (1120.0, False)):
        later, _ = device.initiate(8, 2, now_s)
        assert later[-16:] == (noise.mac(cookie, later[:-16]) if shown else bytes(16))


def test_a_cookie_for_another_message_is_refused() -> None:
    device, gateway = couple()
    message, _ = device.initiate(7, 1)
    _, waiting = device.initiate(7, 2)
    with pytest.raises(NoiseError):
        device.learn(waiting, noise.cookie_reply(gateway.public, bytes(24), bytes(16), message), 0.0)


def test_what_an_initiator_keeps_shows_no_key() -> None:
    assert repr(couple()[0].initiate(7, 1)[1]) == "Waiting(7)"
