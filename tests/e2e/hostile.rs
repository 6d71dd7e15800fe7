//! Clients that mean harm, before the daemon as a real process: what they cost it in memory, and
//! that everybody else is served.
//!
//! Goal: no client makes the daemon grow by more than `GROWTH_MIB_MAX`, panic, or turn others away.
//! Method: a guard with little room for messages, many hostile clients over TCP, and its peak of
//! memory as the kernel counts it (`VmHWM`). Nothing is measured in time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::letter;
use crate::sink::{Sink, runtime};
use crate::wait::until;

#[path = "../support/hostile.rs"]
mod shapes;

const ALICE: &str = "alice@ours.example";
const BOB: &str = "bob@far.example";

/// Room for messages that these guards are given.
const MEMORY_MAX: &str = "16MiB";
/// By how much it may have grown at its worst, once it has served a letter.
const GROWTH_MIB_MAX: u64 = 56;

/// How much is sent where the amount is of no matter to the daemon: `REPLYGUARD_HOSTILE_MIB=1024`
/// sends a gibibyte.
fn mib() -> usize {
    let asked = std::env::var("REPLYGUARD_HOSTILE_MIB").ok().and_then(|mib| mib.parse().ok());
    asked.unwrap_or(64)
}

fn settings(sink: &Sink) -> Settings {
    Settings::before(sink.address()).set("outbound.memory_max", MEMORY_MAX).talkative()
}

/// It serves a letter; gives its peak in MiB until now.
fn served(guard: &Guard, sink: &Sink) -> u64 {
    let mut client = Client::open(guard.address());
    client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, "before-all")));
    sink.wait_for_text("letter before-all");
    guard.peak_mib()
}

/// It has kept within its bound, has not panicked, and serves a letter as if nothing had been.
fn is_well(guard: &Guard, sink: &Sink, idle: u64, what: &str) {
    let mut client = Client::open(guard.address());
    let text = format!("after-{what}");
    client.deliver(&Mail::new(ALICE, &[BOB], letter(ALICE, BOB, &text)));
    sink.wait_for_text(&format!("letter {text}"));
    assert!(!guard.log().contains("panicked"), "{}", guard.log());
    let peak = guard.peak_mib();
    println!("{what}: the daemon's peak is {peak} MiB, {idle} MiB before");
    assert!(peak <= idle + GROWTH_MIB_MAX, "{what}: {peak} MiB after {idle} MiB");
}

/// Sends all of it, and what comes of it meanwhile is read; gives the replies' codes.
async fn said(stream: TcpStream, bytes: Vec<u8>) -> Vec<u16> {
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text).await;
        text
    });
    let _ = writer.write_all(&bytes).await;
    let _ = writer.shutdown().await;
    let text = String::from_utf8_lossy(&reading.await.unwrap()).into_owned();
    let codes = text.lines().filter(|line| line.as_bytes().get(3) != Some(&b'-'));
    codes.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

/// So many clients at once say this, each over a connection of its own.
fn at_once(clients: usize, server: SocketAddr, bytes: &[u8]) -> Vec<Vec<u16>> {
    runtime().block_on(async {
        let mut all = JoinSet::new();
        for _ in 0..clients {
            let bytes = bytes.to_vec();
            all.spawn(async move { said(TcpStream::connect(server).await.unwrap(), bytes).await });
        }
        all.join_all().await
    })
}

fn transaction(mail_from: &str, message: &[u8]) -> Vec<u8> {
    let commands =
        format!("EHLO c.example\r\nMAIL FROM:<{mail_from}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n");
    [commands.as_bytes(), message, b"\r\n.\r\nQUIT\r\n"].concat()
}

/// Ten mebibytes from each of many at once: whoever finds no room waits, or gets 452.
#[test]
fn many_large_messages_at_once_wait_for_room() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    sink.at(crate::sink::Stage::Data, crate::sink::Act::Say("451 4.3.0 Later"));
    let line = b"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n";
    let body = line.repeat((1 << 20) / line.len());
    let message = [b"Subject: large\r\n\r\n".to_vec(), body].concat();
    for mail_from in ["", ALICE] {
        for codes in at_once(200, guard.address(), &transaction(mail_from, &message)) {
            assert_eq!(codes[..4], [220, 250, 250, 250], "{codes:?}");
            assert!(matches!(codes.get(4), Some(354 | 452)), "{codes:?}");
        }
    }
    sink.behave();
    is_well(&guard, &sink, idle, "large-messages");
}

/// A header that does not end, in fields and in one line; and a line of commands that does not end.
#[test]
fn what_does_not_end_takes_no_memory() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    sink.at(crate::sink::Stage::Data, crate::sink::Act::Say("451 4.3.0 Later"));
    let fields = b"X-Long: 0123456789 0123456789 0123456789 0123456789\r\n";
    let fields = fields.repeat((mib() << 20) / fields.len());
    let line = [b"X-Long: ".to_vec(), vec![b'x'; mib() << 20]].concat();
    for mail_from in ["", ALICE] {
        for message in [&fields, &line] {
            let codes = at_once(1, guard.address(), &transaction(mail_from, message)).remove(0);
            assert_eq!(codes[..5], [220, 250, 250, 250, 354], "{codes:?}");
            assert_eq!(codes.last(), Some(&221), "{codes:?}");
        }
    }
    for byte in [b'x', 0, b'\r', 0xff] {
        let line = [vec![byte; mib() << 20], b"\r\nQUIT\r\n".to_vec()].concat();
        let codes = at_once(1, guard.address(), &line).remove(0);
        assert_eq!(codes, [220, 500, 221], "a line of {byte:#x}");
    }
    sink.behave();
    is_well(&guard, &sink, idle, "endless-lines");
}

/// A hundred thousand recipients, and many clients with as many as there may be, of the longest
/// kind: those past the bound are told to come later.
#[test]
fn recipients_without_number_are_for_later() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    let mut many = b"EHLO c.example\r\nMAIL FROM:<>\r\n".to_vec();
    (0..100_000).for_each(|n| many.extend(format!("RCPT TO:<r{n}@far.example>\r\n").into_bytes()));
    many.extend(b"QUIT\r\n");
    let codes = at_once(1, guard.address(), &many).remove(0);
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!(codes.len(), 100_004, "a reply for each command");
    assert!(count(452) >= 98_000 && count(250) > 2, "{} and {}", count(250), count(452));

    let long = "x".repeat(900);
    for mail_from in ["", ALICE] {
        let mut longest = format!("EHLO c.example\r\nMAIL FROM:<{mail_from}>\r\n").into_bytes();
        for n in 0..2500 {
            let rcpt = format!("RCPT TO:<{n}{long}@far.example> ORCPT=rfc822;{n}{long}@a.example");
            longest.extend([rcpt.as_bytes(), b"\r\n"].concat());
        }
        longest.extend(b"QUIT\r\n");
        for codes in at_once(30, guard.address(), &longest) {
            assert_eq!(codes.len(), 2504, "a reply for each command");
            assert!(codes.contains(&452));
            assert!(codes[3..].contains(&250), "the first ones fit");
        }
    }
    is_well(&guard, &sink, idle, "recipients");
}

/// Messages made of nothing but structure, as large as a guard reads at the most.
#[test]
fn messages_of_structure_alone_are_read_within_the_bound() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink).set("outbound.inspect_max", "16MiB"));
    let idle = served(&guard, &sink);
    for shape in shapes::SHAPES {
        let count = if shape.name == "parts" { 200_000 } else { shape.full };
        let mut message = (shape.make)(count);
        message.truncate(15 << 20);
        let codes = at_once(1, guard.address(), &transaction("", &message)).remove(0);
        assert_eq!(codes[..5], [220, 250, 250, 250, 354], "{}: {codes:?}", shape.name);
        assert_eq!(codes.last(), Some(&221), "{}: {codes:?}", shape.name);
    }
    is_well(&guard, &sink, idle, "structure");
}

/// One client takes all it can: it gets its share, and the next one is served.
#[test]
fn one_client_with_very_many_connections_shuts_nobody_out() {
    let sink = Sink::smtp();
    let guard = Guard::start(
        settings(&sink).set("outbound.sessions_max", 500).set("outbound.client_sessions_max", 100),
    );
    let idle = served(&guard, &sink);
    let count = std::env::var("REPLYGUARD_HOSTILE_CLIENTS").ok().and_then(|n| n.parse().ok());
    let (greeted, other) = runtime().block_on(async {
        let (mut kept, mut greeted) = (Vec::new(), 0);
        for _ in 0..count.unwrap_or(700) {
            let Ok(mut stream) = TcpStream::connect(guard.address()).await else { continue };
            let mut code = [0; 3];
            let is_said = stream.read_exact(&mut code).await.is_ok();
            greeted += usize::from(is_said && &code == b"220");
            kept.push(stream);
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let other = socket.connect(guard.address()).await.unwrap();
        (greeted, said(other, transaction(ALICE, letter(ALICE, BOB, "other").as_bytes())).await)
    });
    assert_eq!(greeted, 100);
    assert_eq!(other, [220, 250, 250, 250, 354, 250, 221]);
    let refused = guard.metric("sessions_refused_total{why=\"share\"}");
    assert!(refused >= 600, "{refused}");
    let lines = guard.log().matches("a client has its share").count();
    assert!((1..=2).contains(&lines), "{lines} lines in the log");
    until("the places to be free again", || (guard.metric("client_sessions") == 0).then_some(()));
    is_well(&guard, &sink, idle, "connections");
}

/// The pass-through is there for the whole world: each client has its share of that as well.
#[test]
fn one_client_of_the_pass_through_shuts_nobody_out() {
    let sink = Sink::smtp();
    let tap = crate::claim::Port::claim();
    let guard = Guard::start(
        settings(&sink)
            .set("local.networks", vec!["192.0.2.0/24"])
            .set("tap.smtp.listen", vec![tap.address().to_string()])
            .set("tap.smtp.next_hop", vec![sink.address().to_string()])
            .set("tap.smtp.client", "none")
            .set("tap.smtp.client_sessions_max", 2),
    );
    let idle = served(&guard, &sink);
    let mut kept = [Client::open(tap.address()), Client::open(tap.address())];
    let mut third = Client::connect(tap.address());
    third.expect("421 4.7.0 too many sessions from your address, come back later");
    third.expect_closed();
    let other = runtime().block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let stream = socket.connect(tap.address()).await.unwrap();
        said(stream, transaction(ALICE, letter(ALICE, BOB, "other").as_bytes())).await
    });
    assert_eq!(other, [220, 250, 250, 250, 354, 250, 221]);
    kept[0].command("QUIT");
    kept[0].expect_closed();
    until("the place to be free again", || {
        let mut again = Client::connect(tap.address());
        (again.reply().code() == 220).then_some(())
    });
    is_well(&guard, &sink, idle, "pass-through");
}

/// Goal: who leaves behind his final dot, without waiting for the reply, has sent a message, and the
/// tap knows it. Method: a server that takes its time; a client that closes, and one that resets.
#[test]
fn who_does_not_wait_for_the_reply_is_remembered_by_the_pass_through() {
    let sink = Sink::smtp();
    let late = crate::sink::Act::Late(std::time::Duration::from_secs(1));
    sink.at(crate::sink::Stage::EndOfData, late);
    let tap = crate::claim::Port::claim();
    let guard = Guard::start(
        settings(&sink)
            .set("tap.smtp.listen", vec![tap.address().to_string()])
            .set("tap.smtp.next_hop", vec![sink.address().to_string()])
            .set("tap.smtp.client", "none"),
    );
    for (number, resets) in [(1, false), (2, true)] {
        let text = letter("eve@bank.example", ALICE, &format!("leaves-{number}"));
        let whole = transaction("eve@bank.example", text.as_bytes());
        let stream = runtime().block_on(async {
            let mut stream = TcpStream::connect(tap.address()).await.unwrap();
            stream.write_all(&whole[..whole.len() - b"QUIT\r\n".len()]).await.unwrap();
            stream
        });
        until("the message to be with the tap", || {
            (guard.metric("tap_messages{tap=\"smtp\"}") == number).then_some(())
        });
        if resets {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        until("the record of the message", || {
            (guard.metric("store_records") == number).then_some(())
        });
        sink.wait_for_text(&format!("letter leaves-{number}"));
    }
}

/// A connection reset after each byte of a dialogue: nothing arrives but what was whole, and nothing
/// twice; no session is left over.
#[test]
fn a_reset_at_every_byte_leaves_nothing_behind() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    for mail_from in ["", ALICE] {
        let text = letter(ALICE, BOB, "reset");
        let whole = transaction(mail_from, text.as_bytes());
        let dot = whole.len() - b"QUIT\r\n".len();
        let before = sink.count_taken();
        runtime().block_on(async {
            for cut in 0..whole.len() {
                let mut stream = TcpStream::connect(guard.address()).await.unwrap();
                let _ = stream.write_all(&whole[..cut]).await;
                if cut % 2 == 0 {
                    // As far as the server has come; without it most resets meet the greeting.
                    let _ = stream.read(&mut [0; 512]).await;
                }
                stream.set_zero_linger().unwrap();
            }
        });
        until("the sessions to end", || (guard.metric("client_sessions") == 0).then_some(()));
        let most = whole.len() - dot;
        let taken = sink.count_taken() - before;
        assert!(taken <= most, "{taken} of {most} that were whole");
    }
    is_well(&guard, &sink, idle, "resets");
}

/// Bytes that no mail has, at every place of a dialogue: a reply to each line, and nothing of them
/// in a command to the next hop.
#[test]
fn strange_bytes_everywhere_get_a_reply() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    let strange: [&[u8]; 5] = [b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\x1b[2J"];
    let whole = transaction(ALICE, letter(ALICE, BOB, "strange").as_bytes());
    let mut all = Vec::new();
    for at in 0..whole.len() {
        let (before, behind) = whole.split_at(at);
        all.push([before, strange[at % strange.len()], behind].concat());
    }
    for bytes in all {
        let codes = at_once(1, guard.address(), &bytes).remove(0);
        assert!(codes.len() >= 2 && codes[0] == 220, "{}", bytes.escape_ascii());
    }
    let odd = |line: &String| line.bytes().any(|byte| !(0x20..0x7f).contains(&byte));
    let commands = sink.commands();
    assert!(!commands.iter().any(odd), "{:?}", commands.iter().find(|line| odd(line)));
    is_well(&guard, &sink, idle, "strange-bytes");
}

/// A client that gives nothing but keeps its connection is no trouble for the others: it takes a
/// place and little memory.
#[test]
fn hundreds_of_idle_sessions_take_little() {
    let sink = Sink::smtp();
    let guard = Guard::start(settings(&sink));
    let idle = served(&guard, &sink);
    let kept = runtime().block_on(async {
        let mut kept = Vec::new();
        for _ in 0..400 {
            let mut stream = TcpStream::connect(guard.address()).await.unwrap();
            stream.write_all(b"EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b").await.unwrap();
            let mut greeting = [0; 64];
            assert!(stream.read(&mut greeting).await.unwrap() > 0);
            kept.push(stream);
        }
        kept
    });
    until("all of them to be there", || (guard.metric("client_sessions") >= 400).then_some(()));
    let grown = guard.peak_mib() - idle;
    assert!(grown <= 32, "{grown} MiB for {} sessions", kept.len());
    is_well(&guard, &sink, idle, "idle-sessions");
}
