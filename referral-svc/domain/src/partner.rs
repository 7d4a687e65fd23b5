//! Partners: identity, place in the tree, and standing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{LEVELS, id::PartnerId};

/// Where a person can be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// "telegram", "email", "webhook" or "slack".
    pub channel: String,
    /// The address on it.
    pub address: String,
}

/// What may change about a person without touching tree or money.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    /// Public handle.
    pub username: String,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// BCP 47 tag.
    pub locale: String,
    /// In order of preference.
    pub contacts: Vec<Contact>,
}

impl Profile {
    /// How the person is called in a message to others.
    pub fn display_name(&self) -> &str {
        [&self.first_name, &self.username]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("P2PHub partner", |name| name)
    }
}

/// A partner's identity and place in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partner {
    /// Permanent.
    pub partner_id: PartnerId,
    /// Permanent.
    pub external_id: String,
    /// Permanent.
    pub referral_code: ReferralCode,
    /// Set once, for ever.
    pub referrer_id: Option<PartnerId>,
    /// 0 for a root.
    pub depth: i32,
    /// The referrer first, nine at most.
    pub lineage: Vec<PartnerId>,
    /// What may change.
    pub profile: Profile,
    /// When it was registered.
    pub create_time: DateTime<Utc>,
    /// When it came below its referrer, if that was later.
    pub attach_time: Option<DateTime<Utc>>,
}

impl Partner {
    /// The lineage of whoever stands directly below this partner.
    pub fn lineage_below(&self) -> Vec<PartnerId> {
        std::iter::once(self.partner_id).chain(self.lineage.iter().copied()).take(LEVELS).collect()
    }
}

/// What a partner has reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Experience points.
    pub xp: i64,
    /// Partners by level below, level 1 first.
    pub members: [i64; LEVELS],
    /// Of them, those counted as PRO; follows by up to a minute.
    pub pro_members: [i64; LEVELS],
    /// Whether this partner is counted in the ancestors' `pro_members`.
    pub counted_as_pro: bool,
    /// When PRO ends or ended.
    pub pro_expires_at: Option<DateTime<Utc>>,
    /// How many of that expiry's notices were requested, 0 to 3: three days before, one day before, at the end.
    pub notices_sent: u8,
}

impl Standing {
    /// Whether PRO is active at `now`.
    pub fn is_pro(&self, now: DateTime<Utc>) -> bool {
        self.pro_expires_at.is_some_and(|end| now < end)
    }
}

/// XP that one signup gave one ancestor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XpAward {
    /// Who receives it.
    pub partner_id: PartnerId,
    /// Who signed up.
    pub source_partner_id: PartnerId,
    /// 1 to 9.
    pub level: u8,
    /// 1, or the plan's multiplier.
    pub multiplier: u16,
    /// The multiplier included.
    pub xp: i64,
    /// When.
    pub create_time: DateTime<Utc>,
}

/// "P2P-" and 8 or more of the characters 0-9 A-Z, in upper case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReferralCode(String);

impl ReferralCode {
    /// Crockford's base 32: no I, L, O or U, which are misread (<https://www.crockford.com/base32.html>).
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

    /// A code of `length` characters from random bits; 12 at most.
    pub fn from_random(random: u64, length: u8) -> Self {
        let symbols = (0..length.min(12)).map(|index| {
            let symbol = random.checked_shr(u32::from(index).saturating_mul(5)).unwrap_or(0) & 31;
            char::from(Self::ALPHABET[usize::try_from(symbol).unwrap_or(0)])
        });
        Self("P2P-".chars().chain(symbols).collect())
    }

    /// What somebody typed, in any case; it may belong to nobody.
    pub fn from_input(text: &str) -> Self {
        Self(text.trim().to_ascii_uppercase())
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_published_shape() {
        let code = ReferralCode::from_random(u64::MAX, 8);
        assert_eq!(code.as_str(), "P2P-ZZZZZZZZ");
        assert_eq!(ReferralCode::from_input(" p2p-zzzzzzzz "), code);
        assert_eq!(ReferralCode::from_random(0, 12).as_str().len(), 16);
    }
}
