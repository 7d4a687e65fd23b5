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
/// the others. Where the weights split a place, `random` (of any size) decides who gets it, each lane as often as the part of
/// it that is its own: in the long run each gets its share, however few places there are at a time.
pub fn share(room: u32, waiting: [u32; LANES], weights: [u32; LANES], random: u32) -> [u32; LANES] {
    let mut given = [0_u32; LANES];
    let mut left = room.min(waiting.into_iter().fold(0, u32::saturating_add));
    while left > 0 {
        let mut wanting = weights;
        for ((weight, wanted), given) in wanting.iter_mut().zip(waiting).zip(given) {
            if given >= wanted {
                *weight = 0;
            }
        }
        let total = wanting.into_iter().fold(0, u32::saturating_add);
        // Tickets at even distances over the lanes' parts of places laid end to end (systematic sampling).
        let Some(mut ticket) = random.checked_rem(total).map(u64::from) else { break };
        let (total, mut laid) = (u64::from(total), 0_u64);
        let places = u64::from(left);
        for ((given, wanted), weight) in given.iter_mut().zip(waiting).zip(wanting) {
            let parts = places.saturating_mul(weight.into());
            let whole = parts.checked_div(total).unwrap_or_default();
            laid = laid.saturating_add(parts.checked_rem(total).unwrap_or_default());
            let by_lot = u64::from(ticket < laid);
            ticket = ticket.saturating_add(total.saturating_mul(by_lot));
            let more = u32::try_from(whole.saturating_add(by_lot)).unwrap_or(u32::MAX);
            let more = more.min(wanted.saturating_sub(*given));
            *given = given.saturating_add(more);
            left = left.saturating_sub(more);
        }
    }
    given
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
    fn however_few_places_there_are_at_a_time_each_lane_gets_its_share_in_the_long_run() {
        const TURNS: u32 = 10_000;
        for (waiting, parts) in [([1000; LANES], WEIGHTS), ([1000, 0, 1000], [6, 0, 1])] {
            for room in 1..=17 {
                let mut given = [0; LANES];
                for random in 0..TURNS {
                    let one = share(room, waiting, WEIGHTS, random.wrapping_mul(2_654_435_761));
                    assert_eq!(one.iter().sum::<u32>(), room);
                    given.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
                }
                for (given, part) in given.into_iter().zip(parts) {
                    let expected = TURNS * room * part / parts.iter().sum::<u32>();
                    assert!(given.abs_diff(expected) < TURNS / 30, "{given} of {expected}, {room} at a time");
                }
            }
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
