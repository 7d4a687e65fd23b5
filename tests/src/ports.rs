//! Ports for services that must come back under the same address after a stop.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
};

use rand::RngExt;

/// Below the range from which the system picks ports for outgoing connections, so that none of those can take it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A loopback address that nobody listens on, handed out once per process.
pub fn free() -> SocketAddr {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(RANGE)));
        if given.insert(address.port()) && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
