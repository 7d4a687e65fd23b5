//! Pages of a list: how large, and where the next one begins.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;
use service::error::Failure;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::notifications::Filter;

const SIZE_DEFAULT: usize = 50;
const SIZE_MAX: usize = 500;
/// Encoded bytes of a page, its last item excepted: an answer may have 4 MiB, and an item is far from the rest.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Bytes of the filter's digest in a token.
const DIGEST_BYTES: usize = 8;

/// The size of a page.
pub(super) fn size(page_size: i32) -> Result<usize, Failure> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(Failure::violation("page_size", format!("must be 0 to {SIZE_MAX}"))),
    }
}

/// The page: as many as asked for, unless they are too large for one answer.
pub(super) fn cut<M: Message>(items: impl IntoIterator<Item = M>, size: usize) -> Vec<M> {
    let mut bytes = 0;
    let room = |item: &M| {
        let has_room = bytes < PAGE_BYTES_MAX;
        bytes += item.encoded_len();
        has_room
    };
    items.into_iter().take(size).take_while(room).collect()
}

/// A token for what comes after `last`; good only with the same filter.
pub(super) fn make_token(last: Uuid, filter: &Filter) -> String {
    let bytes = [digest(filter).as_slice(), last.as_bytes()].concat();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Where a token says to go on; `None` for the first page.
pub(super) fn read_token(token: &str, filter: &Filter) -> Result<Option<Uuid>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = || Failure::violation("page_token", "is not a token of this list with these filters");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let (given, last) = bytes.split_at_checked(DIGEST_BYTES).ok_or_else(invalid)?;
    if given != digest(filter) {
        return Err(invalid());
    }
    Uuid::from_slice(last).map(Some).map_err(|_| invalid())
}

fn digest(filter: &Filter) -> [u8; DIGEST_BYTES] {
    let mut hash = Sha256::new();
    let fields = [
        filter.recipient_id.clone(),
        filter.state.map(|state| state.as_str().to_owned()),
        filter.trace_id.clone(),
        filter.source_event_id.map(|id| id.to_string()),
    ];
    for field in fields {
        // Length first, so that no two filters read the same.
        let text = field.unwrap_or_default();
        hash.update(text.len().to_be_bytes());
        hash.update(text);
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
        let filter = Filter { recipient_id: Some("a".to_owned()), ..Filter::default() };
        let last = Uuid::now_v7();
        let token = make_token(last, &filter);
        assert_eq!(read_token(&token, &filter).ok(), Some(Some(last)));
        assert!(read_token(&token, &Filter::default()).is_err());
    }

    #[test]
    fn garbage_is_refused() {
        for token in ["x", "====", "AAAA", "не токен", &"A".repeat(10_000)] {
            let failure = read_token(token, &Filter::default()).expect_err(token);
            assert_eq!(failure.violations[0].0, "page_token");
        }
    }
}
