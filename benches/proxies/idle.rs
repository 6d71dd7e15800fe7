//! What the guard needs in memory: at rest, with idle sessions, with large messages at once.

use std::io::Write;
use std::net::SocketAddr;
use std::thread::scope;

use crate::driver::Talk;
use crate::guard::{Guard, Settings};
use crate::processes::{child, mib};
use crate::sink;

/// Idle sessions at once.
const IDLE: usize = 10_000;

/// Sessions that send at once, and how much each.
const SENDING: usize = 1_000;
const SENT_BYTES: usize = 10 * 1024 * 1024;

/// Prints the three.
pub fn memory() {
    let (_sink, port) = sink();
    let guard = Guard::start(Settings::before(port.address()));
    let group = child("replyguard").unwrap();
    let rest = mib(group, "VmRSS");
    println!("\nat rest {rest:>32.1} MiB (wanted 30)");
    let mut idle: Vec<Talk> = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(Talk::open(guard.address()));
    }
    let with = mib(group, "VmRSS");
    let each = (with - rest) * 1024.0 / IDLE as f64;
    println!("{IDLE} idle sessions {with:>20.1} MiB, {each:.1} KiB each (wanted 40)");
    drop(idle);
    drop(guard);

    let settings = Settings::before(port.address()).set("outbound.sessions_max", 2_000);
    let guard = Guard::start(settings);
    let group = child("replyguard").unwrap();
    scope(|scope| {
        for n in 0..SENDING {
            let address = guard.address();
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn_scoped(scope, move || large(address, n))
                .unwrap();
        }
    });
    let peak = mib(group, "VmHWM");
    println!("{SENDING} sending 10 MiB at once {peak:>13.1} MiB at the peak (wanted 1024)");
}

/// Sends one message, as often as it is told to come again later.
fn large(to: SocketAddr, n: usize) {
    let mut talk = Talk::open(to);
    let line = "The quick brown fox jumps over the lazy dog, and the dog lets it pass.\r\n";
    let block = line.repeat(900);
    loop {
        talk.say(b"MAIL FROM:<joe@far.example>\r\n");
        if !talk.is_taken("250") {
            continue;
        }
        talk.say(b"RCPT TO:<someone@elsewhere.example>\r\nDATA\r\n");
        talk.expect("250");
        if !talk.is_taken("354") {
            continue;
        }
        talk.say(format!("Subject: {n}\r\nMessage-ID: <{n}@far.example>\r\n\r\n").as_bytes());
        for _ in 0..SENT_BYTES / block.len() {
            talk.say(block.as_bytes());
        }
        talk.say(b".\r\n");
        if talk.is_taken("250") {
            return;
        }
    }
}
