//! Pages: bounded sizes, and tokens that are good for the list that they came from alone.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use service::error::Failure;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::fields::Checked;

const SIZE_DEFAULT: i32 = 50;
const SIZE_MAX: i32 = 500;
const SEAL_BYTES: usize = 8;

/// Where the next page begins: the last row's place in the list's order.
pub(crate) trait Cursor: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Cursor for Uuid {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

impl Cursor for i64 {
    fn encode(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Cursor for i16 {
    fn encode(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Cursor for DateTime<Utc> {
    fn encode(&self) -> Vec<u8> {
        self.timestamp_micros().encode()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        i64::decode(bytes).and_then(Self::from_timestamp_micros)
    }
}

/// Two parts; the second is the UUID or ends the bytes.
impl<A: Cursor, B: Cursor> Cursor for (A, B) {
    fn encode(&self) -> Vec<u8> {
        let (first, second) = (self.0.encode(), self.1.encode());
        [vec![u8::try_from(first.len()).unwrap_or(u8::MAX)], first, second].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first()?;
        let (first, second) = rest.split_at_checked(usize::from(*length))?;
        Some((A::decode(first)?, B::decode(second)?))
    }
}

/// One page of a list that is asked for.
pub(crate) struct Page<C> {
    size: usize,
    list: Vec<String>,
    after: Option<C>,
}

impl<C: Cursor> Page<C> {
    /// `list` names the list with its filters: a token of another list is refused.
    pub(crate) fn new(size: i32, token: &str, list: &[&str]) -> Checked<Self> {
        let size = match size {
            0 => SIZE_DEFAULT,
            1..=SIZE_MAX => size,
            _ => return Err(Failure::violation("page_size", format!("must be 0 to {SIZE_MAX}"))),
        };
        let list: Vec<String> = list.iter().map(|part| (*part).to_owned()).collect();
        let after = match token {
            "" => None,
            token => Some(read(token, &list).ok_or_else(|| {
                Failure::violation("page_token", "must be the next_page_token of the same list with the same filters")
            })?),
        };
        Ok(Self { size: usize::try_from(size).unwrap_or(1), list, after })
    }

    /// Where to go on, or the list's beginning.
    pub(crate) fn after_or(&self, beginning: C) -> C
    where
        C: Clone,
    {
        self.after.clone().unwrap_or(beginning)
    }

    /// How many rows to read: one more than shown, to see whether there is a next page.
    pub(crate) fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX - 1) + 1
    }

    /// Cuts the extra row off, and makes the next page's token if there was one.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, cursor: impl FnOnce(&T) -> C) -> String {
        if rows.len() <= self.size {
            return String::new();
        }
        rows.truncate(self.size);
        rows.last().map(|row| write(&cursor(row), &self.list)).unwrap_or_default()
    }
}

/// Ties a cursor to its list, so that neither passes for another.
fn seal(list: &[String], cursor: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(cursor);
    for part in list {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..SEAL_BYTES].to_vec()
}

fn write(cursor: &impl Cursor, list: &[String]) -> String {
    let cursor = cursor.encode();
    BASE64_URL_SAFE_NO_PAD.encode([seal(list, &cursor), cursor].concat())
}

fn read<C: Cursor>(token: &str, list: &[String]) -> Option<C> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (sealed, cursor) = bytes.split_at_checked(SEAL_BYTES)?;
    (sealed == seal(list, cursor)).then(|| C::decode(cursor)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list() {
        let page = Page::<(i64, Uuid)>::new(1, "", &["top"]).expect("a page");
        let mut rows = vec![(7, Uuid::from_u128(1)), (6, Uuid::from_u128(2))];
        let token = page.cut(&mut rows, |row| *row);
        assert_eq!(rows.len(), 1);
        let next = Page::<(i64, Uuid)>::new(1, &token, &["top"]).expect("the next page");
        assert_eq!(next.after_or((0, Uuid::nil())), (7, Uuid::from_u128(1)));
        assert!(Page::<(i64, Uuid)>::new(1, &token, &["another"]).is_err());
        assert!(Page::<Uuid>::new(1, &token, &["top"]).is_err());
        assert!(Page::<Uuid>::new(1, "%%%", &["top"]).is_err());
        assert!(Page::<Uuid>::new(501, "", &["top"]).is_err());
        assert!(Page::<Uuid>::new(-1, "", &["top"]).is_err());
        assert_eq!(next.cut(&mut vec![(6, Uuid::nil())], |row| *row), "");
    }
}
