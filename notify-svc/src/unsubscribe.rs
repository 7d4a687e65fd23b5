//! Tokens that stop a recipient's e-mail with one click: signed, so that none can be made up, and good for ever.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the signature in a token.
const SIGNATURE_BYTES: usize = 16;

/// Issues and reads tokens; all instances hold the same key.
#[derive(Clone)]
pub(crate) struct UnsubscribeTokens {
    mac: Hmac<Sha256>,
}

impl UnsubscribeTokens {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        // HMAC fills a key up to its block with zeros (RFC 2104).
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self { mac: Hmac::new(&block.into()) }
    }

    /// The token of a recipient.
    pub(crate) fn issue(&self, recipient_id: &str) -> String {
        let signature = self.signed(recipient_id).finalize().into_bytes();
        BASE64_URL_SAFE_NO_PAD.encode([&signature[..SIGNATURE_BYTES], recipient_id.as_bytes()].concat())
    }

    /// Whose token it is; `None` if it was never issued.
    pub(crate) fn read(&self, token: &str) -> Option<String> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signature, recipient_id) = bytes.split_at_checked(SIGNATURE_BYTES)?;
        let recipient_id = std::str::from_utf8(recipient_id).ok()?;
        self.signed(recipient_id).verify_truncated_left(signature).ok()?;
        Some(recipient_id.to_owned())
    }

    fn signed(&self, recipient_id: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(recipient_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_issued_is_read() {
        let tokens = UnsubscribeTokens::new(&[7; 32]);
        let token = tokens.issue("рецепт-1");
        assert_eq!(tokens.read(&token).as_deref(), Some("рецепт-1"));
        assert_eq!(UnsubscribeTokens::new(&[8; 32]).read(&token), None);
        for forged in ["", "AAAA", "не токен", &token[1..], &tokens.issue("")[..21]] {
            assert_eq!(tokens.read(forged), None, "{forged}");
        }
    }
}
