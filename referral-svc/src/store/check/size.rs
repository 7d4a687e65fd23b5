//! How many things a slice has.

use std::time::Duration;

/// A statement that takes longer is a bad neighbour: those who write wait for the processor, and so for the disk.
const LONG: Duration = Duration::from_millis(200);

/// The least size, and the first slice's: the oldest partners have the longest histories.
pub(super) fn least(usual: usize) -> usize {
    (usual / 64).max(1)
}

/// The next slice's size: half after one that took long, twice as many after a short one, within a pass's usual size.
pub(super) fn next(size: usize, took: Duration, usual: usize) -> usize {
    if took > LONG {
        (size / 2).max(least(usual))
    } else if took < LONG / 4 {
        size.saturating_mul(2).min(usual)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_slices_shrink_and_short_ones_grow_within_bounds() {
        let ms = Duration::from_millis;
        for (size, took, then) in [
            (1000, ms(201), 500),
            (1000, ms(200), 1000),
            (1000, ms(50), 1000),
            (1000, ms(49), 2000),
            (3000, ms(0), 5000),
            (5000, ms(0), 5000),
            (100, ms(10_000), 78),
            (78, ms(10_000), 78),
        ] {
            assert_eq!(next(size, took, 5000), then, "{size} in {took:?}");
        }
        assert_eq!(next(1, ms(1000), 10), 1);
        assert_eq!((least(5000), least(10)), (78, 1));
    }
}
