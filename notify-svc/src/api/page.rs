//! Pages of a list: how large, and where the next one begins.

use std::ops::Range;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use prost::Message;
use service::error::Failure;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const SIZE_DEFAULT: usize = 50;
const SIZE_MAX: usize = 500;
/// Encoded bytes of a page, its last item excepted: an answer may have 4 MiB, and an item is far from the rest.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Microseconds since 1970 that a token may hold: until the year 10000.
const TIMES: Range<i64> = 0..253_402_300_800_000_000;
/// Bytes of the filter's digest in a token.
const DIGEST_BYTES: usize = 8;

/// The size of a page.
fn size(page_size: i32) -> Result<usize, Failure> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(Failure::violation("page_size", format!("must be 0 to {SIZE_MAX}"))),
    }
}

/// The page: as many as asked for, unless they are too large for one answer.
fn cut<M: Message>(items: impl IntoIterator<Item = M>, size: usize) -> Vec<M> {
    let mut bytes = 0;
    let room = |item: &M| {
        let has_room = bytes < PAGE_BYTES_MAX;
        bytes += item.encoded_len();
        has_room
    };
    items.into_iter().take(size).take_while(room).collect()
}

/// What a list is ordered by, and so where one of its pages ends.
pub(super) trait Key: Sized {
    fn to_bytes(&self) -> Vec<u8>;
    /// `None`: it isn't one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for Uuid {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// A time and a name.
impl Key for (DateTime<Utc>, String) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.0.timestamp_micros().to_be_bytes().as_slice(), self.1.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (micros, name) = bytes.split_first_chunk()?;
        let micros = Some(i64::from_be_bytes(*micros)).filter(|micros| TIMES.contains(micros))?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('\0'))?;
        Some((DateTime::from_timestamp_micros(micros)?, name.to_owned()))
    }
}

/// One page of a list that is asked for.
pub(super) struct Page<K> {
    size: usize,
    scope: Vec<String>,
    /// Where the page before ended.
    pub(super) before: Option<K>,
}

impl<K: Key> Page<K> {
    /// `scope` names the list with its filters: a token of another is refused.
    pub(super) fn new(page_size: i32, token: &str, scope: Vec<String>) -> Result<Self, Failure> {
        let size = size(page_size)?;
        let before = read_token(token, &scope)?;
        Ok(Self { size, scope, before })
    }

    /// How many rows to read: one more than shown tells whether there is another page.
    pub(super) fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The items that fit on the page, and the next page's token if something is left.
    pub(super) fn cut<R, M: Message>(
        &self,
        rows: Vec<R>,
        key: impl Fn(&R) -> K,
        show: impl Fn(R) -> M,
    ) -> (Vec<M>, String) {
        let keys: Vec<K> = rows.iter().map(key).collect();
        let items = cut(rows.into_iter().map(show), self.size);
        let (shown, left) = keys.split_at(items.len());
        let next_page_token = match shown.last() {
            Some(last) if !left.is_empty() => make_token(last, &self.scope),
            _ => String::new(),
        };
        (items, next_page_token)
    }
}

/// A token for what comes after `last`; good only with the same scope.
fn make_token(last: &impl Key, scope: &[String]) -> String {
    let bytes = [digest(scope).as_slice(), &last.to_bytes()].concat();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Where a token says to go on; `None` for the first page.
fn read_token<K: Key>(token: &str, scope: &[String]) -> Result<Option<K>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = || Failure::violation("page_token", "is not a token of this list with these filters");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let (given, last) = bytes.split_at_checked(DIGEST_BYTES).ok_or_else(invalid)?;
    if given != digest(scope) {
        return Err(invalid());
    }
    K::from_bytes(last).map(Some).ok_or_else(invalid)
}

fn digest(scope: &[String]) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    for part in scope {
        // Length first, so that no two scopes read the same.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0).ok(), Some(50));
        assert_eq!(size(500).ok(), Some(500));
        assert!(size(-1).is_err() && size(1001).is_err() && size(i32::MAX).is_err());
    }

    #[test]
    fn a_page_is_cut_by_number_and_by_bytes() {
        let mib = || "x".repeat(1024 * 1024);
        assert_eq!(cut(vec![String::new(); 501], 500).len(), 500);
        assert_eq!(cut((0..10).map(|_| mib()), 500).len(), 3);
        assert_eq!(cut([mib().repeat(4), mib()], 500).len(), 1);
    }

    #[test]
    fn a_token_is_good_with_its_filter_only() {
        let scope = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        let page = Page::new(2, "", scope(&["list", "a"])).expect("a page");
        let rows: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        let (items, token) = page.cut(rows.clone(), |id| *id, |id| id.to_string());
        assert_eq!(items.len(), 2);
        assert_eq!(read_token(&token, &scope(&["list", "a"])).ok(), Some(Some(rows[1])));
        for other in [scope(&["list", ""]), scope(&["list"]), scope(&["lista"])] {
            assert!(read_token::<Uuid>(&token, &other).is_err());
        }
        assert_eq!(page.cut(rows[..2].to_vec(), |id| *id, |id| id.to_string()).1, "");
    }

    #[test]
    fn garbage_is_refused() {
        for token in ["x", "====", "AAAA", "не токен", &"A".repeat(10_000)] {
            let failure = read_token::<Uuid>(token, &[]).expect_err(token);
            assert_eq!(failure.violations[0].0, "page_token");
        }
    }

    #[test]
    fn a_time_and_a_name_are_read_as_they_were_written() {
        let key = |seconds, name: &str| (DateTime::from_timestamp(seconds, 1000).expect("a time"), name.to_owned());
        for key in [key(0, ""), key(1_700_000_000, "channel/почта"), key(253_402_300_799, "a")] {
            assert_eq!(<(DateTime<Utc>, String)>::from_bytes(&key.to_bytes()), Some(key));
        }
        for key in [key(-1, "a"), key(253_402_300_800, "a"), key(0, "NUL\0")] {
            assert_eq!(<(DateTime<Utc>, String)>::from_bytes(&key.to_bytes()), None);
        }
        assert_eq!(<(DateTime<Utc>, String)>::from_bytes(&[0; 7]), None);
        assert_eq!(<(DateTime<Utc>, String)>::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff]), None);
    }
}
