//! Work that is done again and again, and fails for a while: the log says when that begins and when it is over, and nothing
//! in between.

use std::mem;

/// Whether it is known to fail.
#[derive(Debug, Default)]
pub struct Interruption(bool);

impl Interruption {
    /// It failed: whether that is news.
    pub fn begins(&mut self) -> bool {
        !mem::replace(&mut self.0, true)
    }

    /// It went well: whether that is news.
    pub fn ends(&mut self) -> bool {
        mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_news_once() {
        let mut interruption = Interruption::default();
        assert!(!interruption.ends(), "nothing was interrupted yet");
        for _ in 0..2 {
            assert_eq!([interruption.begins(), interruption.begins()], [true, false]);
            assert_eq!([interruption.ends(), interruption.ends()], [true, false]);
        }
    }
}
