//! Account addresses, in one spelling.
//!
//! Source: TEP-2, <https://github.com/ton-blockchain/TEPs/blob/master/text/0002-address.md>.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Why a text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("must be an address of TON: 48 characters of base64, or workchain:hex")]
pub struct InvalidAddress;

/// The raw form (workchain, colon, 64 lower-case hex digits) of an address in raw or in user-friendly form.
pub fn raw_address(text: &str) -> Result<String, InvalidAddress> {
    let text = text.trim();
    let (workchain, hash) =
        if text.contains(':') { from_raw(text) } else { from_friendly(text) }.ok_or(InvalidAddress)?;
    Ok(format!("{workchain}:{hash}"))
}

fn from_raw(text: &str) -> Option<(i32, String)> {
    let (workchain, hash) = text.split_once(':')?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((workchain.parse().ok()?, is_hash.then(|| hash.to_ascii_lowercase())?))
}

/// Flags, workchain, 32 bytes of hash, and CRC-16 of these 34 bytes.
fn from_friendly(text: &str) -> Option<(i32, String)> {
    // Bounceable or not; not those of a test network, which have the top bit.
    const FLAGS: [u8; 2] = [0x11, 0x51];
    let text: String = text
        .chars()
        .map(|character| match character {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    let bytes: [u8; 36] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (content, checksum) = bytes.split_at(34);
    if !FLAGS.contains(&content[0]) || crc16(content).to_be_bytes() != checksum {
        return None;
    }
    let workchain = i8::from_be_bytes([content[1]]);
    Some((i32::from(workchain), content[2..].iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// CRC-16/XMODEM: polynomial 0x1021, starting at 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    fn friendly(flags: u8, workchain: i8, hash: [u8; 32]) -> Vec<u8> {
        let mut bytes = vec![flags, workchain.to_be_bytes()[0]];
        bytes.extend(hash);
        bytes.extend(crc16(&bytes).to_be_bytes());
        bytes
    }

    #[test]
    fn the_examples_of_the_standard_are_one_account() {
        let raw = "-1:fcb91a3a3816d0f7b8c2c76108b8a9bc5a6b7a55bd79f8ab101c52db29232260";
        for text in [
            raw,
            "Ef_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYDJ4",
            "Uf/8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15+KsQHFLbKSMiYG+9",
        ] {
            assert_eq!(raw_address(text).as_deref(), Ok(raw), "{text}");
        }
        for text in [
            "",
            "0:12",
            "kf_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYIny",
            "Ef_8uRo6OBbQ97jCx2EIuKm8Wmt6Vb15-KsQHFLbKSMiYDJ5",
            "EQ",
        ] {
            assert_eq!(raw_address(text), Err(InvalidAddress), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_account_is_one_address_and_a_typing_error_none(
            hash: [u8; 32], workchain: i8, broken in 0..36_usize, bit in 0..8_u8,
        ) {
            let hex: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
            let raw = raw_address(&format!(" {workchain}:{hex}")).expect("raw");
            for flags in [0x11, 0x51] {
                let mut bytes = friendly(flags, workchain, hash);
                prop_assert_eq!(&raw_address(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)).expect("url"), &raw);
                prop_assert_eq!(&raw_address(&BASE64_STANDARD.encode(&bytes)).expect("standard"), &raw);
                bytes[broken] ^= 1 << bit;
                prop_assert_eq!(raw_address(&BASE64_STANDARD.encode(&bytes)), Err(InvalidAddress));
            }
        }
    }
}
