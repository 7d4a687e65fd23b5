//! Signs the heads of the audit chains, and knows its own signature again (Ed25519, RFC 8032).

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use referral_domain::seal::{Hash, Head};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The key that heads are signed with.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
}

/// Heads as they are exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Signed {
    /// JSON.
    pub(crate) payload: String,
    /// Hex.
    pub(crate) signature: String,
    /// Hex.
    pub(crate) public_key: String,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    time: String,
    blocks: i64,
    chains: Vec<PayloadHead>,
}

#[derive(Serialize, Deserialize)]
struct PayloadHead {
    chain_id: Uuid,
    position: i64,
    hash: String,
}

impl Signer {
    /// From 32 bytes in hex or base64.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let seed = from_hex(text).or_else(|| BASE64_STANDARD.decode(text).ok())?;
        Some(Self { pair: Ed25519KeyPair::from_seed_unchecked(&seed).ok()? })
    }

    pub(crate) fn public_key(&self) -> String {
        to_hex(self.pair.public_key().as_ref())
    }

    /// Signs these heads; `blocks` is how many there are in all chains.
    pub(crate) fn sign(&self, heads: &[Head], blocks: i64, now: DateTime<Utc>) -> serde_json::Result<Signed> {
        let chains = heads.iter().map(|head| PayloadHead {
            chain_id: head.chain_id,
            position: head.position,
            hash: to_hex(&head.hash),
        });
        let time = now.to_rfc3339_opts(SecondsFormat::Micros, true);
        let payload = serde_json::to_string(&Payload { time, blocks, chains: chains.collect() })?;
        let signature = to_hex(self.pair.sign(payload.as_bytes()).as_ref());
        Ok(Signed { payload, signature, public_key: self.public_key() })
    }

    /// The heads that were signed; None: not by this key.
    pub(crate) fn verify(&self, signed: &Signed) -> Option<Vec<Head>> {
        let ours = self.pair.public_key().as_ref();
        if from_hex(&signed.public_key)? != ours {
            return None;
        }
        let signature = from_hex(&signed.signature)?;
        UnparsedPublicKey::new(&ED25519, ours).verify(signed.payload.as_bytes(), &signature).ok()?;
        let payload: Payload = serde_json::from_str(&signed.payload).ok()?;
        payload
            .chains
            .into_iter()
            .map(|head| {
                let hash: Hash = from_hex(&head.hash)?.try_into().ok()?;
                Some(Head { chain_id: head.chain_id, position: head.position, hash })
            })
            .collect()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn a_key_is_32_bytes_in_hex_or_base64() {
        let base64 = BASE64_STANDARD.encode(from_hex(SEED).expect("bytes"));
        for text in [SEED, &SEED.to_uppercase(), &base64] {
            assert_eq!(Signer::from_text(text).map(|signer| signer.public_key()).as_deref(), Some(PUBLIC), "{text}");
        }
        for text in ["", "00", &SEED[1..], &SEED[2..], "not a key", &base64[..40]] {
            assert!(Signer::from_text(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn only_what_this_key_signed_is_taken() {
        let signer = Signer::from_text(SEED).expect("a key");
        let other = Signer::from_text(&SEED.replace('9', "8")).expect("a key");
        let heads = [Head { chain_id: Uuid::from_u128(1), position: 7, hash: [7; 32] }];
        let signed = signer.sign(&heads, 7, DateTime::UNIX_EPOCH).expect("a payload");
        assert_eq!(signer.verify(&signed).as_deref(), Some(heads.as_slice()));
        assert_eq!(other.verify(&signed), None);
        let claims = Signed { public_key: other.public_key(), ..signed.clone() };
        assert_eq!((signer.verify(&claims), other.verify(&claims)), (None, None));
        let payload = signed.payload.replace("\"position\":7", "\"position\":6");
        assert_ne!(payload, signed.payload);
        assert_eq!(signer.verify(&Signed { payload, ..signed.clone() }), None);
        for signature in ["", "zz", &signed.signature[2..]] {
            assert_eq!(signer.verify(&Signed { signature: signature.to_owned(), ..signed.clone() }), None);
        }
    }
}
