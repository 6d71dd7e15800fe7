//! Claims on what the tests of this machine share: ports and server folders.
//!
//! A claim is a locked file; the kernel gives it up when the process ends, however it ends. So
//! neither two tests of one run nor two runs side by side ever get the same port.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;

use crate::wait::until;

/// Below the kernel's range for outgoing connections, which would take a port away in between.
const PORTS: Range<u16> = 20_000..30_000;

/// One of a numbered kind of things; ours until dropped.
#[derive(Debug)]
pub struct Claim {
    number: u16,
    _lock: File,
}

impl Claim {
    /// A free number of `range` for which `good` holds; waits while all are taken.
    pub fn of(kind: &str, range: Range<u16>, mut good: impl FnMut(u16) -> bool) -> Self {
        let folder = std::env::temp_dir().join("replyguard-claims").join(kind);
        fs::create_dir_all(&folder).unwrap();
        until(&format!("a free {kind}"), || Self::first(&folder, range.clone(), &mut good))
    }

    fn first(folder: &Path, range: Range<u16>, good: &mut dyn FnMut(u16) -> bool) -> Option<Self> {
        // Why: starting anywhere keeps parallel runs out of one another's way.
        let start = u16::try_from(std::process::id() % u32::from(range.end - range.start)).unwrap();
        let mut numbers = (range.start + start..range.end).chain(range.start..range.start + start);
        numbers.find_map(|number| {
            let lock = File::create(folder.join(number.to_string())).unwrap();
            let ours = lock.try_lock().is_ok() && good(number);
            ours.then_some(Self { number, _lock: lock })
        })
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on.
#[derive(Debug)]
pub struct Port(Claim);

impl Port {
    pub fn claim() -> Self {
        // Why not try to listen: a program that another thread is starting at this moment would
        // hold a copy of the socket for a while, and keep the port from its server.
        let free = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
        Self(Claim::of("port", PORTS, free))
    }

    pub fn number(&self) -> u16 {
        self.0.number()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number()))
    }
}

#[test]
fn two_claims_are_two_ports() {
    let (one, two) = (Port::claim(), Port::claim());
    assert_ne!(one.number(), two.number());
}

#[test]
fn a_claim_is_given_up_when_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let claim = || Claim::first(folder.path(), 7..9, &mut |_| true);
    let (one, two) = (claim().unwrap(), claim().unwrap());
    assert_eq!(one.number() + two.number(), 7 + 8);
    assert!(claim().is_none());
    let number = one.number();
    drop(one);
    // Polled: a program that another thread is starting holds a copy of the lock until it runs.
    assert_eq!(until("the claim to be free", claim).number(), number);
}
