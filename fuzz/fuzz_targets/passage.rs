//! The whole way: the bytes that the next hop gets are the bytes that the client sent, but for our
//! two lines, however they are cut into packets; or the message is refused, and nothing came.
//!
//! The front, the guard, the relay and the log are the real ones, over connections and a disk in
//! memory; client and next hop are those of the tests, and read the end of a message on their own.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use replyguard::serve::smtp::{BareLineEnd, Front};
use replyguard_fuzz::{packets, seeded};

#[allow(dead_code)]
#[path = "../../tests/it/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "../../tests/it/hop.rs"]
mod hop;
#[allow(dead_code)]
#[path = "../../tests/support/random.rs"]
mod random;
#[allow(dead_code)]
#[path = "../../tests/it/rig.rs"]
mod rig;

use disk::ModelDisk;
use hop::{Fate, Hop, Net, Seen, USUAL, could_end, shown};
use rig::{Rig, SITE, config};

const HOP: &str = "192.0.2.1:25";
const BEGINNING: &[u8] =
    b"EHLO c\r\nMAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n";
/// Bytes read before deciding: so few that most of a message streams behind the decision.
const INSPECT_MAX: usize = 64;

/// The codes that the client hears, and what the next hop saw.
async fn pass(packets: &[&[u8]]) -> (Vec<u16>, Vec<Seen>) {
    let hop = Hop::smtp(USUAL);
    let site = SITE.replace("\"enforce\"", "\"observe\"");
    let config = config(&format!("{site}[outbound]\nnext_hop = [{HOP:?}]\n"), Path::new("/s"));
    let net = Arc::new(Net::of(&[(HOP, &hop)]));
    let mut rig = Rig::new(&config, ModelDisk::default(), net).await;
    rig.front = Arc::new(Front {
        listener: rig.front.listener,
        protocol: rig.front.protocol,
        hostname: rig.front.hostname.clone(),
        inspect_max: INSPECT_MAX,
        bare_line_end: BareLineEnd::Pass,
        guard: Arc::clone(rig.guard()),
        budget_kib: Arc::clone(&rig.front.budget_kib),
        tls: None,
    });
    let mut client = rig.connect_through(1 << 20);
    for packet in packets {
        client.send(packet).await;
        // Why: otherwise all packets would be there before the first is read.
        tokio::task::yield_now().await;
    }
    client.leave().await;
    let mut codes = Vec::new();
    while let code @ 1.. = client.reply().await.code() {
        codes.push(code);
    }
    (codes, hop.seen())
}

/// RFC 5321 §4.5.2 and nothing else: the content of a message that stands on the wire.
fn by_the_book(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut rest = wire;
    while !rest.starts_with(b".\r\n") {
        rest = rest.strip_prefix(b".").unwrap_or(rest);
        let end = rest.windows(2).position(|two| two == b"\r\n").map_or(rest.len(), |at| at + 2);
        content.extend_from_slice(&rest[..end]);
        rest = &rest[end..];
    }
    content
}

fuzz_target!(|input: &[u8]| {
    let (seed, message) = seeded(input);
    let content = [message, b"\r\n.\r\n"].concat();
    let wire = [BEGINNING, &content].concat();
    let play = |packets: &[&[u8]]| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(pass(packets))
    };
    let (codes, seen) = play(&packets(seed, &wire));
    for seen in &seen {
        assert!(!could_end(&seen.wire), "{}", shown(&seen.wire));
    }
    let taken: Vec<&Seen> = seen.iter().filter(|seen| seen.fate == Fate::Taken).collect();
    let answer = codes.get(5).copied().unwrap_or_default();
    assert!(matches!(answer, 250 | 550..=554), "{codes:?}");
    if answer == 250 {
        assert_eq!(shown(&taken[0].original()), shown(&by_the_book(&content)));
    }
    let (codes_whole, seen_whole) = play(&[&wire]);
    assert_eq!(codes, codes_whole);
    let taken_whole = seen_whole.iter().filter(|seen| seen.fate == Fate::Taken);
    let originals: Vec<String> = taken_whole.map(|seen| shown(&seen.original())).collect();
    assert_eq!(taken.iter().map(|seen| shown(&seen.original())).collect::<Vec<_>>(), originals);
});
