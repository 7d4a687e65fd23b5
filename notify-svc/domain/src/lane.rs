//! Lanes: urgent notifications go first, and yet no lane ever starves.

use serde::Deserialize;

/// How many lanes there are.
pub const LANES: usize = 3;

/// Which queue a kind of notification stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Money, and what somebody has just paid for.
    Urgent,
    /// The rest of what concerns one person.
    Normal,
    /// What goes to many.
    Bulk,
}

impl Lane {
    /// Every lane, the first first.
    pub const ALL: [Self; LANES] = [Self::Urgent, Self::Normal, Self::Bulk];

    /// The stored number, which is also its place in arrays by lane.
    pub const fn number(self) -> i16 {
        match self {
            Self::Urgent => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }
}

/// How many of `room` places each lane gets, of those that `waiting` wants: by weight, what one lane doesn't need going to
/// the others, the first lanes first. `random` (of any size) decides who gets the places that the weights split, so that in
/// the long run each lane gets its share even of one place at a time.
pub fn share(room: u32, waiting: [u32; LANES], weights: [u32; LANES], random: u32) -> [u32; LANES] {
    let mut given = [0_u32; LANES];
    let wanting = |given: &[u32; LANES]| {
        let mut weights = weights;
        for ((weight, wanted), given) in weights.iter_mut().zip(waiting).zip(given) {
            if *given >= wanted {
                *weight = 0;
            }
        }
        weights
    };
    let mut left = room.min(waiting.iter().fold(0, |sum: u32, wanted| sum.saturating_add(*wanted)));
    // Whole shares first: each lane's part of the room, rounded down.
    let all = sum(wanting(&given));
    if let Some(total) = nonzero(all) {
        let whole = wanting(&given).map(|weight| part(left, weight, total));
        for ((given, wanted), whole) in given.iter_mut().zip(waiting).zip(whole) {
            *given = wanted.min(whole);
        }
        left = left.saturating_sub(sum(given));
    }
    // Then place by place, by lot among those who still want one.
    let mut lot = random;
    while left > 0 {
        let weights = wanting(&given);
        let Some(total) = nonzero(sum(weights)) else { break };
        let mut ticket = lot.checked_rem(total).unwrap_or_default();
        for (given, weight) in given.iter_mut().zip(weights) {
            if ticket < weight {
                *given = given.saturating_add(1);
                break;
            }
            ticket = ticket.saturating_sub(weight);
        }
        // Any fixed scrambling: the next ticket is another one (Numerical Recipes' linear congruential generator).
        lot = lot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223).rotate_left(16);
        left = left.saturating_sub(1);
    }
    given
}

fn sum(values: [u32; LANES]) -> u32 {
    values.into_iter().fold(0, u32::saturating_add)
}

fn nonzero(value: u32) -> Option<u32> {
    (value > 0).then_some(value)
}

fn part(room: u32, weight: u32, total: u32) -> u32 {
    let whole = u64::from(room).saturating_mul(weight.into()).checked_div(total.into()).unwrap_or_default();
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEIGHTS: [u32; LANES] = [6, 3, 1];

    #[test]
    fn full_lanes_share_by_weight() {
        assert_eq!(share(100, [1000; LANES], WEIGHTS, 0), [60, 30, 10]);
        assert_eq!(share(100, [0, 5, 1000], WEIGHTS, 0), [0, 5, 95]);
        assert_eq!(share(8, [3, 3, 1], WEIGHTS, 7), [3, 3, 1]);
    }

    #[test]
    fn even_one_place_at_a_time_no_lane_starves() {
        let mut given = [0; LANES];
        for random in 0..10_000_u32 {
            let one = share(1, [1000; LANES], WEIGHTS, random.wrapping_mul(2_654_435_761));
            assert_eq!(one.iter().sum::<u32>(), 1);
            for (sum, one) in given.iter_mut().zip(one) {
                *sum += one;
            }
        }
        for (given, expected) in given.into_iter().zip([6000_i64, 3000, 1000]) {
            assert!((i64::from(given) - expected).abs() < 300, "{given} of {expected}");
        }
    }

    proptest! {
        #[test]
        fn all_the_room_is_used_and_nobody_gets_more_than_wanted(
            room in 0_u32..500, waiting: [u16; LANES], random: u32, weights in prop::array::uniform3(1_u32..20),
        ) {
            let waiting = waiting.map(u32::from);
            let given = share(room, waiting, weights, random);
            prop_assert_eq!(given.iter().sum::<u32>(), room.min(waiting.iter().sum()));
            prop_assert!(given.iter().zip(waiting).all(|(given, wanted)| *given <= wanted));
        }

        #[test]
        fn each_gets_at_least_its_whole_share(room in 0_u32..500, random: u32) {
            let given = share(room, [1000; LANES], WEIGHTS, random);
            for (given, weight) in given.into_iter().zip(WEIGHTS) {
                prop_assert!(given >= room * weight / 10);
            }
        }
    }
}
