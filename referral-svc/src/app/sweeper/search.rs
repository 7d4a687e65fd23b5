//! Finds the rows that a command can't be done for, by halves: whoever fails with others is tried in smaller company, and who
//! fails alone is one of them.

/// What is still to be tried, together or apart.
pub(super) struct Search<K> {
    left: Vec<Vec<K>>,
}

impl<K> Search<K> {
    /// All at once, to begin with.
    pub(super) fn of(keys: Vec<K>) -> Self {
        Self { left: vec![keys] }
    }

    /// What to try next.
    pub(super) fn next(&mut self) -> Option<Vec<K>> {
        self.left.pop()
    }

    /// These failed: their halves come next. Returns the one at fault, if it was alone.
    pub(super) fn failed(&mut self, mut keys: Vec<K>) -> Option<K> {
        if keys.len() <= 1 {
            return keys.pop();
        }
        let rest = keys.split_off(keys.len() / 2);
        self.left.extend([rest, keys]);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Who is found at fault, who is done, and how many tries it takes, if whatever contains one of `bad` fails.
    fn search(count: u32, bad: &BTreeSet<u32>) -> (BTreeSet<u32>, Vec<u32>, usize) {
        let mut search = Search::of((0..count).collect());
        let (mut found, mut done, mut tries) = (BTreeSet::new(), Vec::new(), 0);
        while let Some(keys) = search.next() {
            tries += 1;
            if keys.iter().any(|key| bad.contains(key)) {
                found.extend(search.failed(keys));
            } else {
                done.extend(keys);
            }
        }
        (found, done, tries)
    }

    #[test]
    fn all_others_are_done_in_their_order_and_those_at_fault_are_found() {
        for bad in [vec![], vec![0], vec![199], vec![7, 8], vec![3, 77, 150], (0..200).collect()] {
            let bad: BTreeSet<u32> = bad.into_iter().collect();
            let (found, done, tries) = search(200, &bad);
            assert_eq!(found, bad);
            assert_eq!(done, (0..200).filter(|key| !bad.contains(key)).collect::<Vec<_>>());
            // Each costs its way down, two tries a step, and no more than there are halves.
            assert!(tries <= 1 + bad.len() * 2 * 8 && tries < 2 * 200, "{tries} tries for {bad:?}");
        }
        assert_eq!(search(1, &BTreeSet::from([0])), (BTreeSet::from([0]), vec![], 1));
    }
}
