"""Speed-ups as ranges: by hand, and that their medians hold what is not seen."""

import math
import random
from statistics import median

import pytest

from prompttransfer.transfers.speedups import Range, median_interval, median_range, sign_test, speed_up


def test_a_ratio_of_two_intervals_by_hand():
    # scratch within (80, 100], the source within (20, 40]
    assert speed_up(100, 40, every=20, last=200) == Range(80 / 40, 100 / 20)
    # the source within (0, 20]: nothing bounds the ratio from above
    assert speed_up(100, 20, every=20, last=200) == Range(4.0, math.inf)
    # there before the first step
    assert speed_up(100, 0, every=20, last=200) == Range(5.0, math.inf)
    # not there at the last look
    assert speed_up(100, None, every=20, last=200) == Range(0.0, 0.5)
    # the last look, at step 110, comes 10 steps after the one before
    assert speed_up(110, 40, every=20, last=110) == Range(100 / 40, 110 / 20)
    assert speed_up(0, 40, every=20, last=200) is None


def test_ranges_in_words():
    assert str(Range(2.0, 5.0)) == "2.0x to 5.0x"
    assert str(Range(4.0, math.inf)) == "above 4.0x" and str(Range(0.0, 0.5)) == "below 0.5x"
    assert str(Range(0.0, math.inf)) == "not known"
    with pytest.raises(ValueError, match="0 <= low <= high"):
        Range(2.0, 1.0)


def test_the_median_of_ranges_by_hand():
    ranges = [Range(2, 4), Range(0, 1), Range(3, math.inf)]
    assert median_range(ranges) == Range(2, 4)
    assert median_range([*ranges, Range(5, math.inf)]) == Range(
        2.5, math.inf
    )  # half of them have no upper end
    assert median_range([]) is None


def test_the_interval_of_the_median_is_that_of_the_sign_test():
    ranges = [Range(low, low + 1) for low in range(1, 7)]
    # of six, P(all on one side) = 1/64 < .025, and with one more 7/64: the least low end to the greatest high end
    assert median_interval(ranges) == Range(1, 7)
    assert median_interval(ranges[:5]) is None
    # of nine, P(at most 1 of 9) = 10/512 < .025 < P(at most 2)
    assert median_interval([Range(low, low + 1) for low in range(1, 10)]) == Range(2, 9)


def test_a_range_that_holds_the_value_counts_against_either_side_of_a_sign_test():
    # 5 above, 1 below, 1 that holds 1: two-sided p = 2 P(at least 5 of 7) = 2 (21 + 7 + 1) / 128
    ranges = [Range(1.5, 2)] * 5 + [Range(0, 0.5), Range(0.5, 2)]
    assert sign_test(ranges) == pytest.approx(58 / 128)
    assert sign_test([Range(1.5, 2)] * 6) == 2 / 64
    assert sign_test([Range(0.5, 2)]) == 1.0 and sign_test([]) is None


def test_the_sign_test_and_the_interval_never_contradict_each_other():
    generator = random.Random(1)
    for _ in range(300):
        ranges = [Range(low, low + 0.5) for low in (generator.uniform(0.3, 1.8) for _ in range(8))]
        found = median_interval(ranges)
        assert (sign_test(ranges) <= 0.05) == (found.low >= 1 or found.high < 1)


def simulated(generator, pairs, every=20, last=300):
    """True ratios, and the ranges that looks every so many steps give, where sources need half as long or never learn."""
    truth, seen = [], []
    for _ in range(pairs):
        scratch = generator.uniform(60, 280)
        source = math.inf if generator.random() < 0.3 else scratch * generator.lognormvariate(-0.7, 0.8)
        truth.append(scratch / source)
        looked = math.ceil(source / every) * every if source <= last else None
        seen.append(speed_up(math.ceil(scratch / every) * every, looked, every=every, last=last))
    return truth, seen


def test_the_range_of_the_median_always_holds_it_and_the_interval_holds_the_true_one():
    generator = random.Random(0)
    population = median(simulated(generator, 20_000)[0])
    held = 0
    for _ in range(400):
        truth, seen = simulated(generator, 12)
        for ratio, found in zip(truth, seen, strict=True):
            assert found.low <= ratio <= found.high
        middle = median_range(seen)
        assert middle.low <= median(truth) <= middle.high
        interval = median_interval(seen)
        held += interval.low <= population <= interval.high
    assert held / 400 >= 0.95
