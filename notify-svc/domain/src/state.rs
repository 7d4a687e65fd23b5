//! The states of notifications, deliveries and attempts, with the names under which they are stored.

/// An enum whose values are stored by name.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The stored name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            /// The value with a stored name.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// Where a notification stands.
    NotificationState {
        /// Waiting for its first or next attempt.
        Queued = "QUEUED",
        /// A worker holds it. Never stored: its open delivery says so.
        Sending = "SENDING",
        /// A channel took it.
        Delivered = "DELIVERED",
        /// The recipient doesn't want it.
        Suppressed = "SUPPRESSED",
        /// Its time passed before it could be sent.
        Expired = "EXPIRED",
        /// An operator stopped it.
        Cancelled = "CANCELLED",
        /// Every channel gave up.
        Dead = "DEAD",
    }
}

named! {
    /// Where the delivery over one channel stands.
    DeliveryState {
        /// Waiting for its first or next attempt.
        Queued = "QUEUED",
        /// A worker holds it.
        Sending = "SENDING",
        /// The channel took it.
        Delivered = "DELIVERED",
        /// The channel gave up.
        Failed = "FAILED",
        /// Its time passed before it could be sent.
        Expired = "EXPIRED",
        /// An operator stopped it.
        Cancelled = "CANCELLED",
        /// The recipient doesn't want it on this channel.
        Suppressed = "SUPPRESSED",
    }
}

named! {
    /// How an attempt ended; what is done next depends on nothing else.
    OutcomeClass {
        /// The channel took it.
        Delivered = "DELIVERED",
        /// The provider was busy or away.
        Transient = "TRANSIENT",
        /// The address is blocked, unknown or malformed.
        Address = "ADDRESS",
        /// The provider does not take this content.
        Content = "CONTENT",
        /// Our set-up is wrong: a revoked token, for example.
        Configuration = "CONFIGURATION",
        /// It may or may not have arrived.
        Ambiguous = "AMBIGUOUS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back() {
        for state in NotificationState::ALL {
            assert_eq!(NotificationState::parse(state.as_str()), Some(*state));
        }
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::parse(state.as_str()), Some(*state));
        }
        for class in OutcomeClass::ALL {
            assert_eq!(OutcomeClass::parse(class.as_str()), Some(*class));
        }
        assert_eq!(DeliveryState::parse("queued"), None);
    }
}
