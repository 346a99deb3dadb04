//! Places for connections: so many in all, and a quarter of them for one address. Whoever may not ask can take no more than that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Peer;

/// The part of all places that one address may have: others still get in, and a controller has but a few.
const PART_OF_ONE: usize = 4;

/// All places of a server.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_one_max: usize,
    held: Mutex<HashMap<IpAddr, Held>>,
}

/// What one address has.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// Whether its having too many was logged.
    told: bool,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    of: Option<(Arc<Places>, IpAddr)>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let all = Arc::new(Semaphore::new(count));
        Self { all, of_one_max: count / PART_OF_ONE, held: Mutex::default() }
    }

    /// Waits until a place is free, for whoever comes next.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// The place for a connection of `peer`; `None` if its address has too many.
    pub(super) fn take(self: &Arc<Self>, one: OwnedSemaphorePermit, peer: &Peer) -> Option<Place> {
        let Peer::Ip(address) = peer else { return Some(Place { _one: one, of: None }) };
        let address = network(*address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of = held.entry(address).or_default();
        if of.count < self.of_one_max {
            of.count += 1;
            return Some(Place { _one: one, of: Some((Arc::clone(self), address)) });
        }
        if !std::mem::replace(&mut of.told, true) {
            tracing::warn!(
                "{address} has {} connections, and further ones are closed: find who holds them",
                self.of_one_max
            );
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, address)) = &self.of else { return };
        let mut held = places.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = held.get_mut(address) else { return };
        of.count -= 1;
        if of.count == 0 {
            held.remove(address);
        }
    }
}

/// Whose address it is: with IPv6 everybody has 2⁶⁴ of them, which count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Ip(address.parse().unwrap())
    }

    #[tokio::test]
    async fn one_address_has_a_quarter_of_the_places() {
        let places = Arc::new(Places::new(16));
        let take = async |peer: &Peer| places.take(places.free().await.unwrap(), peer);
        for (greedy, itself, another) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::1"),
        ] {
            let mut taken = Vec::new();
            while let Some(place) = take(&peer(greedy)).await {
                taken.push(place);
            }
            assert_eq!(taken.len(), 4);
            assert!(take(&peer(itself)).await.is_none());
            assert!(take(&peer(another)).await.is_some());
            assert!(take(&Peer::Unix).await.is_some());
            taken.pop();
            assert!(take(&peer(itself)).await.is_some());
        }
        assert!(places.held.lock().unwrap().is_empty());
        assert_eq!(places.all.available_permits(), 16);
    }
}
