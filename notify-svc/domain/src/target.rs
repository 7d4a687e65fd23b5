//! Which addresses a webhook may go to: whoever names a URL must not reach into the network that this service stands in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::state::named;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the Internet.
    Public,
    /// To this machine.
    Loopback,
    /// To a network of someone's own, to many, or nowhere at all.
    Private,
}

/// Where an address leads.
///
/// Sources: IANA's registries of special-purpose IPv4 and IPv6 addresses (RFC 6890 and its updates), of multicast addresses, and
/// of IPv6 global unicast. The few that are globally reachable although reserved (anycast of protocols, AS112) count as private:
/// no webhook is there. An IPv4 address inside an IPv6 one is judged as itself (mapped: RFC 4291, section 2.5.5.2) or as what a
/// translator or tunnel would reach (RFC 6052, section 2.1; RFC 3056, section 2).
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127, ..] => Reach::Loopback,
        // This network, private use, link-local with the clouds' metadata, private use again.
        [0 | 10, ..] | [169, 254, ..] | [192, 168, ..] => Reach::Private,
        [172, second, ..] if second & 0xf0 == 16 => Reach::Private,
        // Shared by a provider's customers (RFC 6598).
        [100, second, ..] if second & 0xc0 == 64 => Reach::Private,
        // Protocol assignments, documentation, AS112, AMT, 6to4 relays, AS112 again.
        [192, 0, 0 | 2, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 88, 99, _] | [192, 175, 48, _] => {
            Reach::Private
        }
        // Benchmarks, documentation.
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Private,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address == Ipv6Addr::LOCALHOST {
        return Reach::Loopback;
    }
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = address.segments();
    match [first, second] {
        // Mapped: the connection itself is IPv4.
        [0, 0] if [third, fourth, fifth, sixth] == [0, 0, 0, 0xffff] => reach_v4(embedded(seventh, eighth)),
        [0x64, 0xff9b] if [third, fourth, fifth, sixth] == [0; 4] => beyond(embedded(seventh, eighth)),
        // 6to4.
        [0x2002, _] => beyond(embedded(second, third)),
        // Protocol assignments: Teredo, benchmarks, ORCHID and more.
        [0x2001, ..=0x1ff] => Reach::Private,
        // Documentation, AS112, documentation again.
        [0x2001, 0xdb8] | [0x2620, 0x4f] | [0x3fff, ..=0xfff] => Reach::Private,
        // 2000::/3 is all the global unicast that there is.
        _ if first & 0xe000 == 0x2000 => Reach::Public,
        _ => Reach::Private,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(one, two, three, four)
}

/// Behind a translator or a tunnel: loopback there is not loopback here.
fn beyond(address: Ipv4Addr) -> Reach {
    match reach_v4(address) {
        Reach::Public => Reach::Public,
        Reach::Loopback | Reach::Private => Reach::Private,
    }
}

named! {
    /// Which addresses besides public ones are allowed.
    PrivateTargets {
        /// None.
        None = "none",
        /// Those of this machine, for development.
        Loopback = "loopback",
        /// All, for those whose webhooks are in their own network.
        All = "all",
    }
}

impl PrivateTargets {
    /// Whether something may be sent to an address.
    pub fn allow(self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Loopback => self != Self::None,
            Reach::Private => self == Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn every_range_at_both_ends_and_beside_them() {
        use Reach::{Loopback, Private, Public};
        let table: &[(Reach, &[&str])] = &[
            (Loopback, &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]),
            (Private, &["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"]),
            (Private, &["169.254.0.0", "169.254.169.254", "169.254.255.255", "172.16.0.0", "172.31.255.255"]),
            (Private, &["192.0.0.0", "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.168.0.0", "192.168.255.255"]),
            (Private, &["192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1"]),
            (Private, &["198.18.0.0", "198.19.255.255", "198.51.100.0", "203.0.113.255"]),
            (Private, &["224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"]),
            (Public, &["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"]),
            (Public, &["128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0"]),
            (
                Public,
                &["192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"],
            ),
            (
                Private,
                &["::", "::2", "::10.0.0.1", "::8.8.8.8", "::ffff:0:8.8.8.8", "::ffff:10.0.0.1", "::ffff:0.0.0.0"],
            ),
            (Private, &["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8"]),
            (Private, &["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "100::1", "2001::1", "2001:1ff:ffff::"]),
            (Private, &["2001:db8::", "2001:db8:ffff::1", "2620:4f:8000::1", "3fff::", "3fff:fff::1", "5f00::1"]),
            (Private, &["fc00::", "fdff::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ffff::"]),
            (Public, &["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:200::1", "2606:4700::1111"]),
            (Public, &["2000::1", "2001:db7::1", "2001:db9::1", "2003::1", "2620:50::1", "3fff:1000::1", "3ffe::1"]),
        ];
        for (expected, addresses) in table {
            for text in *addresses {
                assert_eq!(reach(address(text)), *expected, "{text}");
            }
        }
    }

    #[test]
    fn each_setting_allows_what_it_says() {
        for (targets, allowed) in [
            (PrivateTargets::None, [true, false, false]),
            (PrivateTargets::Loopback, [true, true, false]),
            (PrivateTargets::All, [true, true, true]),
        ] {
            let answers = ["8.8.8.8", "127.0.0.1", "10.0.0.1"].map(|text| targets.allow(address(text)));
            assert_eq!(answers, allowed, "{targets:?}");
        }
    }

    proptest! {
        /// The standard library knows some of the ranges too: where it says that an address is special, so do we.
        #[test]
        fn agrees_with_the_standard_library(bits in any::<u32>()) {
            let address = Ipv4Addr::from_bits(bits);
            let special = address.is_private() || address.is_link_local() || address.is_broadcast()
                || address.is_documentation() || address.is_multicast() || address.is_unspecified();
            prop_assert!(!special || reach_v4(address) == Reach::Private, "{address}");
            prop_assert_eq!(address.is_loopback(), reach_v4(address) == Reach::Loopback, "{}", address);
        }

        #[test]
        fn an_embedded_address_opens_no_other_door(bits in any::<u32>()) {
            let address = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(reach_v6(address.to_ipv6_mapped()), reach_v4(address));
            let [one, two, three, four] = address.octets();
            let (high, low) = (u16::from_be_bytes([one, two]), u16::from_be_bytes([three, four]));
            for outer in [Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)] {
                prop_assert_eq!(reach_v6(outer) == Reach::Public, reach_v4(address) == Reach::Public, "{}", outer);
            }
        }
    }
}
