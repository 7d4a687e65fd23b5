//! External references: one payment's proof elsewhere, in one spelling.

use base64::{
    Engine,
    alphabet::STANDARD as ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// The longest reference, in bytes once trimmed.
pub const REFERENCE_BYTES_MAX: usize = 256;

/// A normalised reference. Equal references are the same money.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExternalRef(String);

/// Why a reference can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidReference {
    /// Nothing is left once trimmed.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`REFERENCE_BYTES_MAX`].
    #[error("must be at most 256 bytes")]
    TooLong,
    /// Contains control characters.
    #[error("must not contain control characters")]
    Control,
}

impl ExternalRef {
    /// Trims; a 32-byte hash in hex (with or without 0x), base64 or base64url (padded or not) becomes 64 lower-case
    /// hex digits, anything else stays as it is.
    pub fn normalise(text: &str) -> Result<Self, InvalidReference> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidReference::Empty);
        }
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(InvalidReference::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidReference::Control);
        }
        Ok(Self(from_hex(text).or_else(|| from_base64(text)).unwrap_or_else(|| text.to_owned())))
    }

    /// One that was normalised before.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The normalised text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn from_hex(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

fn from_base64(text: &str) -> Option<String> {
    // The last character of 43 carries two bits that mean nothing: whatever they are, it is the same hash.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &ALPHABET,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    if !(43..=44).contains(&text.len()) {
        return None;
    }
    let standard: String = text
        .chars()
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let hash = LENIENT.decode(standard).ok().filter(|bytes| bytes.len() == 32)?;
    Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_dress_of_a_hash_is_one_reference(hash: [u8; 32]) {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            for dress in [
                hex.clone(),
                hex.to_uppercase(),
                format!("0x{hex}"),
                format!(" 0X{}\n", hex.to_uppercase()),
                BASE64_STANDARD.encode(hash),
                BASE64_STANDARD_NO_PAD.encode(hash),
                BASE64_URL_SAFE.encode(hash),
                BASE64_URL_SAFE_NO_PAD.encode(hash),
            ] {
                let reference = ExternalRef::normalise(&dress).expect("a reference");
                prop_assert_eq!(reference.as_str(), hex.as_str(), "{}", dress);
            }
        }

        #[test]
        fn normalising_again_changes_nothing(text in "\\PC{1,80}") {
            if let Ok(once) = ExternalRef::normalise(&text) {
                let twice = ExternalRef::normalise(once.as_str()).expect("still a reference");
                prop_assert_eq!(once, twice);
            }
        }
    }

    #[test]
    fn other_references_keep_their_case() {
        assert_eq!(ExternalRef::normalise(" pi_3AbC ").expect("a reference").as_str(), "pi_3AbC");
        assert_eq!(ExternalRef::normalise("  "), Err(InvalidReference::Empty));
        assert_eq!(ExternalRef::normalise(&"x".repeat(257)), Err(InvalidReference::TooLong));
        assert_eq!(ExternalRef::normalise("a\u{0}b"), Err(InvalidReference::Control));
    }
}
