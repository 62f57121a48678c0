"""Codes as bytes: the same codes again, in few bytes; nothing but ValueError on others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantal._core.numbers.entropy import entropy
from quantal._storage.codes import LONGEST, Packed
from quantal._storage.packing import VERSION, most_codes, pack, unpack
from quantal._storage.radix import Words

pytestmark = pytest.mark.without_keras  # NumPy alone


@st.composite
def packable(draw):
    """(codes, base): lists of every length, used evenly or not."""
    base = draw(st.one_of(st.integers(1, 20), st.integers(1, LONGEST)))
    count = draw(st.one_of(st.integers(0, 70), st.integers(0, 5000)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    power = draw(st.sampled_from([1, 3, 20]))  # 1: evenly; 20: nearly always the first.
    codes = (random.random(count) ** power * base).astype(np.int64)
    return np.minimum(codes, base - 1), base


@given(packable())
def test_the_same_codes_again(codes_and_base):
    codes, base = codes_and_base
    packed = pack(codes, base)
    assert packed.length == len(codes)
    np.testing.assert_array_equal(unpack(packed), codes)
    assert len(packed.data) <= Words.densest(base).bytes_of(len(codes))


@pytest.mark.parametrize("base", [1, 2, 3, 5, 6, 7, 16, 17, 100, 255, 256, 257, 1000, 4097, 65536])
def test_every_code_at_the_end_of_a_word(base):
    codes = np.concatenate([np.arange(base), [base - 1] * 40, [0, base - 1]])
    np.testing.assert_array_equal(unpack(pack(codes, base)), codes)


@pytest.mark.parametrize(("base", "coded"), [(1, False), (2, True), (4096, True), (4097, False)])
def test_lists_of_2_to_4096_values_are_coded_where_that_is_shorter(base, coded):
    codes = np.zeros(50_000, int)
    codes[::100] = base - 1
    packed = pack(codes, base)
    assert packed.coded is coded
    np.testing.assert_array_equal(unpack(packed), codes)


def test_codes_that_are_nearly_all_alike_stay_words():
    # A small file is no large model: a coded byte stands for so many codes at most.
    codes = np.zeros(50_000, int)
    codes[7] = 1
    packed = pack(codes, 2)
    assert not packed.coded
    np.testing.assert_array_equal(unpack(packed), codes)


@pytest.mark.parametrize(("base", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_codes_come_back_in_the_smallest_dtype(base, dtype):
    for codes in (np.arange(base), np.zeros(5000, int)):
        assert unpack(pack(codes, base)).dtype == dtype


def test_words_are_as_dense_as_is_known():
    densest = [Words.densest(base) for base in (1, 2, 3, 4, 5, 16, 256, 65536)]
    bits = {words.base: 8 * words.size / words.digits for words in densest}
    assert bits == {1: 0, 2: 1, 3: 1.6, 4: 2, 5: pytest.approx(56 / 24), 16: 4, 256: 8, 65536: 16}
    for base in range(2, 600):
        words = Words.densest(base)
        assert base**words.digits <= 256**words.size < base ** (words.digits + 1)


SHARES = {
    "±1": [1, 1],
    "±1, 70/30": [0.7, 0.3],
    "±1, 90/10": [0.9, 0.1],
    "ternary": [1, 1, 1],
    "ternary, 70/20/10": [0.7, 0.2, 0.1],
    "4": [1, 1, 1, 1],
    "4, 70/20/7/3": [0.7, 0.2, 0.07, 0.03],
    "5": [1] * 5,
    "5, uneven": [0.5, 0.2, 0.15, 0.1, 0.05],
    "16": [1] * 16,
    "16, normal": np.exp(-0.5 * np.linspace(-3, 3, 16) ** 2),
    "256": [1] * 256,
    "256, normal": np.exp(-0.5 * np.linspace(-3, 3, 256) ** 2),
}


@pytest.mark.parametrize("name", SHARES)
def test_a_hundredth_above_the_entropy_at_most(name, random):
    shares = np.asarray(SHARES[name], float)
    codes = random.choice(len(shares), 100_000, p=shares / shares.sum())
    bits = 8 * len(pack(codes, len(shares)).data) / codes.size
    assert bits <= 1.01 * entropy(codes)


# Golden bytes: what is on disk today is read in ten years.


def test_golden_words():
    assert VERSION == 1  # Other bytes have another one.
    assert pack([0, 1, 1, 0, 0, 0, 0, 1, 1], 2).data.hex() == "8601"
    assert pack([2, 1, 0, 2, 1, 2], 3).data.hex() == "8c02"
    assert pack([4] * 24, 5).data.hex() == "a0edccce1bc2d3"
    assert pack([0, 299, 1], 300).data.hex() == "f4bd020000000000"  # 299 * 300 + 300**2
    assert pack([5, 4, 3], 16).data.hex() == "4503"


WHOLE = (
    "ffefff0bff030090b3450090b3450090b3450090b34581805f0081805f0081805f006f3d2d004abf"
    "828b828b828b822d13291329132905eedbd9dbd9dbd9c5bdfd93fd93fd936f8d0fbe84e684e684e6"
    "f6df00540054005400ac"
)


def test_golden_coded():
    codes = np.array([0] * 60 + [1] * 3 + [2])
    codes = np.tile(codes, 20)
    packed = pack(codes, 3)
    assert packed.coded
    assert packed.data.hex() == WHOLE
    np.testing.assert_array_equal(unpack(Packed(bytes.fromhex(WHOLE), 3, codes.size, True)), codes)


# What is not packed codes is refused, without taking memory.


def damaged(draw, packed):
    data = bytearray(packed.data)
    kind = draw(st.sampled_from(["flip", "cut", "more", "count", "base", "coded"]))
    if kind == "flip" and data:
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif kind == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == "more":
        data += draw(st.binary(max_size=9))
    changed = packed._replace(data=bytes(data))
    if kind == "count":
        changed = changed._replace(length=draw(st.integers(-5, 20_000)))
    if kind == "base":
        changed = changed._replace(base=draw(st.integers(-1, LONGEST + 1)))
    return changed._replace(coded=not packed.coded) if kind == "coded" else changed


@settings(max_examples=200)
@given(st.data(), packable())
def test_damage_is_refused_or_gives_codes_of_the_list(data, codes_and_base):
    packed = damaged(data.draw, pack(*codes_and_base))
    try:
        codes = unpack(packed)
    except ValueError:
        return
    assert codes.shape == (packed.length,)
    assert not codes.size or codes.max() < packed.base


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(-2, 70_000), st.integers(-2, 2000), st.booleans())
def test_any_bytes_are_refused_or_give_codes_of_the_list(data, base, count, coded):
    try:
        codes = unpack(Packed(data, base, count, coded))
    except ValueError:
        return
    assert codes.shape == (count,)
    assert not codes.size or codes.max() < base


@pytest.mark.parametrize("coded", [False, True])
def test_a_huge_count_is_refused_before_memory_is_taken(coded):
    packed = pack(np.arange(3000) % 40 // 38, 2)
    with pytest.raises(ValueError, match="Expected 1152921504606846976 codes"):
        unpack(packed._replace(length=2**60, coded=coded))


def test_a_count_beyond_what_the_stream_can_hold_is_refused_before_memory_is_taken():
    packed = pack(np.arange(200_000) % 40 // 38, 2)
    assert packed.coded
    with pytest.raises(ValueError, match="bytes, too few"):
        unpack(packed._replace(length=10 * packed.length))
    # Each code takes some bits at least, as its value is so frequent.
    frequency = 1 + int(np.frombuffer(packed.data, "<u2", 2).max())
    most = int(8 * len(packed.data) / np.log2(65536 / frequency))
    for length, words in ((most, "an early end|another end"), (most + 1, "bytes, too few")):
        with pytest.raises(ValueError, match=words):
            unpack(packed._replace(length=length))


@pytest.mark.parametrize(("base", "digits", "size"), [(5, 24, 7), (3, 5, 1), (300, 7, 8)])
def test_the_largest_word_is_read_and_the_next_one_refused(base, digits, size):
    largest = base**digits - 1
    words = (largest.to_bytes(size, "little"), (largest + 1).to_bytes(size, "little"))
    good, bad = (Packed(2 * word, base, 2 * digits, False) for word in words)
    np.testing.assert_array_equal(unpack(good), np.full(2 * digits, base - 1))
    with pytest.raises(ValueError, match=r"have (a word beyond the largest|the word 243)"):
        unpack(bad)


def test_codes_behind_the_last_are_refused():
    assert unpack(Packed(b"\x07", 2, 3, False)).tolist() == [1, 1, 1]
    for data, base in ((b"\x0f", 2), (b"\x1b", 3)):
        with pytest.raises(ValueError, match="codes behind the last that are not 0"):
            unpack(Packed(data, base, 3, False))


@pytest.mark.parametrize("base", [2, 3, 5, 256, 300, 65536])
def test_so_many_bytes_hold_so_many_codes(base):
    for count in (1, 7, 24, 25, 1000):
        stored = Words.densest(base).bytes_of(count)
        assert most_codes(base, stored, coded=False) >= count
        # One byte less is a word less.
        assert most_codes(base, stored - 1, coded=False) < count
    assert most_codes(base, 3, coded=True) == 3 * 256


@pytest.mark.parametrize("base", [1, 65537])
def test_words_hold_no_codes_of_a_list_that_takes_none(base):
    assert most_codes(base, 100, coded=False) == 0


def test_a_longer_stream_and_other_states_are_refused():
    packed = pack(np.arange(3000) % 40 // 38, 2)
    assert packed.coded
    with pytest.raises(ValueError, match="another end"):
        unpack(packed._replace(data=packed.data + b"\0\0"))
    # The last lane's state, before the stream: its low bits say the lane's first code.
    state = 2 * 2 + 4 * 8 - 4
    other = bytearray(packed.data)
    other[state] ^= 1
    with pytest.raises(ValueError, match="another end"):
        unpack(packed._replace(data=bytes(other)))


def test_bad_input():
    with pytest.raises(TypeError, match=r"codes have the dtype float64\. Expected integers"):
        pack([0.5], 2)
    with pytest.raises(ValueError, match=r"codes reach from 0 to 2\. Expected 0 to 1"):
        pack([0, 2], 2)
    with pytest.raises(ValueError, match="codes reach from -1 to 0"):
        pack([0, -1], 2)
    with pytest.raises(ValueError, match="base is 0"):
        pack(np.zeros(0, int), 0)
    with pytest.raises(ValueError, match="base is 65537"):
        pack(np.zeros(0, int), 65537)
