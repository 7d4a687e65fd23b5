//! Experience points: what a signup awards, and which level they make.

/// The level that `xp` makes, 1 and up; level L is reached at 50·(L-1)·L: 0, 100, 300, 600, …
///
/// The greatest L with 50·(L-1)·L ≤ xp, from the square root, which is exact in integers.
pub fn level_of(xp: i64) -> i32 {
    let halves = xp.max(0).unsigned_abs().checked_div(50).unwrap_or(0);
    // (L-1)·L ≤ n  ⇔  L ≤ (1 + √(1 + 4n)) / 2
    let root = halves.saturating_mul(4).saturating_add(1).isqrt();
    i32::try_from(root.saturating_add(1) >> 1).unwrap_or(i32::MAX)
}

/// The XP at which a level is reached: the other way round.
pub fn xp_at_level(level: i32) -> i64 {
    let level = i64::from(level.max(1));
    level.saturating_sub(1).saturating_mul(level).saturating_mul(50)
}

/// The XP that one ancestor gets, the multiplier included.
pub fn award(base: u32, multiplier: u16) -> i64 {
    i64::from(base).saturating_mul(i64::from(multiplier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_are_reached_at_100_300_600() {
        for (xp, level) in [(0, 1), (99, 1), (100, 2), (299, 2), (300, 3), (599, 3), (600, 4), (999, 4), (1000, 5)] {
            assert_eq!(level_of(xp), level, "{xp} XP");
        }
    }

    proptest! {
        #[test]
        fn a_level_holds_from_its_threshold_to_the_next(xp in 0..=1_000_000_000_000_i64) {
            let level = level_of(xp);
            prop_assert!(xp_at_level(level) <= xp);
            prop_assert!(xp < xp_at_level(level + 1));
        }

        #[test]
        fn more_xp_is_never_a_lower_level(xp in 0..i64::MAX, more in 0..1_000_000_i64) {
            prop_assert!(level_of(xp) <= level_of(xp.saturating_add(more)));
        }
    }
}
