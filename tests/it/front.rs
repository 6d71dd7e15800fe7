//! The front: clients that idle, stall, go, do not listen, pipeline, and come in numbers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use replyguard::mail::limits::{
    BUDGET_WAIT_MAX, CLIENT_IDLE_DEADLINE, CONTENT_DEADLINE, FINAL_DEADLINE_STOPPING,
    MESSAGE_TIME_MAX, RECIPIENTS_MAX,
};
use replyguard::serve::smtp::Stopping;
use tokio::time::{Instant, sleep};

use crate::disk::{Faults, ModelDisk};
use crate::hop::{Act, Fate, Hop, Net, Stage, USUAL};
use crate::random::Random;
use crate::rig::{Client, Rig, SITE, Said, config, letter};

const A: &str = "192.0.2.1:25";

async fn rig(more: &str) -> (Hop, Rig) {
    let hop = Hop::smtp(USUAL);
    let net = Net::of(&[(A, &hop)]);
    let text = format!("{SITE}[outbound]\nnext_hop = [{A:?}]\n{more}\n");
    let config = config(&text, Path::new("/s"));
    (hop, Rig::new(&config, ModelDisk::default(), Arc::new(net)).await)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_idles_is_told_421() {
    let (_, rig) = rig("").await;
    for commands in ["", "MAIL FROM:<ann@uni.example>\r\n", "MAIL FROM:<>\r\n"] {
        let mut client = rig.client().await;
        let began = Instant::now();
        client.send(commands).await;
        if !commands.is_empty() {
            assert_eq!(client.reply().await.code(), 250);
        }
        let said = client.reply().await;
        assert!(said.0.starts_with("421 4.4.2 "), "{said:?}");
        assert_eq!(client.line().await, None);
        assert!(began.elapsed() <= CLIENT_IDLE_DEADLINE + Duration::from_secs(5));
    }
}

/// A client that stalls in its message is told so once, within one deadline, and nothing arrives.
#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_in_its_message_is_told_421() {
    for size in [0, 1000, 400_000] {
        for from in ["", "ann@uni.example"] {
            let (hop, rig) = rig("").await;
            let mut client = rig.client().await;
            let commands = format!("MAIL FROM:<{from}>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n");
            client.send(commands).await;
            assert_eq!(client.replies(3).await, [250, 250, 354]);
            client.send("X: y\r\n".repeat(size / 6)).await;
            let began = Instant::now();
            let said = client.reply().await;
            assert!(said.0.starts_with("421 4.4.2 "), "{said:?}");
            let took = began.elapsed();
            assert!(took <= CONTENT_DEADLINE + Duration::from_secs(5), "{took:?}");
            assert!(hop.seen().iter().all(|seen| seen.fate == Fate::Broken));
            assert!(rig.held().await.is_empty());
        }
    }
}

/// Goal: a client that closes its half of the connection behind its message hears what became of
/// it, and the next hop has all of it.
#[tokio::test(start_paused = true)]
async fn a_client_that_will_say_no_more_hears_its_replies() {
    let (hop, rig) = rig("").await;
    let mut client = rig.connect();
    let commands =
        "EHLO c\r\nMAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n";
    client.send([commands.as_bytes(), &letter("x"), b"..\r\n.\r\n"].concat()).await;
    client.leave().await;
    assert_eq!(client.replies(7).await, [220, 250, 250, 250, 354, 250, 0]);
    assert_eq!(hop.taken()[0].original(), [&letter("x")[..], b".\r\n"].concat());
}

/// A reply is said once, also when the stop of the server meets a client that reads slowly.
#[tokio::test(start_paused = true)]
async fn a_stop_says_nothing_twice() {
    let (_, rig) = rig("").await;
    let mut client = rig.connect_through(16);
    client.send("HELO a\r\n").await;
    sleep(Duration::from_secs(1)).await;
    rig.stop(Stopping::Now);
    sleep(Duration::from_secs(1)).await;
    let mut all = String::new();
    while let Some(line) = client.line().await {
        all.push_str(&line);
    }
    let (heard, farewell) = all.split_once("421 ").expect("a 421");
    assert!(
        "220 guard.uni.example ESMTP replyguard\r\n250 guard.uni.example\r\n".starts_with(heard)
    );
    assert!(farewell.starts_with("4.3.2 shutting down"), "{all}");
}

/// A running transaction gets its end when the server drains; past the deadline an answer to the
/// final dot is awaited a little longer, and whatever comes of it stands in the log.
#[tokio::test(start_paused = true)]
async fn what_runs_when_the_server_stops_is_finished() {
    let (hop, rig) = rig("").await;
    hop.at(Stage::Dot, Act::Late(Duration::from_secs(20)));
    let start = async |text: &str| {
        let mut client = rig.client().await;
        client.send("MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n").await;
        assert_eq!(client.replies(3).await, [250, 250, 354]);
        client.send([&letter(text)[..], b".\r\n"].concat()).await;
        client
    };
    let mut first = start("first").await;
    sleep(FINAL_DEADLINE_STOPPING / 2).await;
    let mut second = start("second").await;
    sleep(FINAL_DEADLINE_STOPPING).await;
    let mut third = start("third").await;
    let mut idle = rig.client().await;
    let mut thinking = rig.client().await;
    assert_eq!(thinking.ask("MAIL FROM:<ann@uni.example>").await.code(), 250);
    rig.stop(Stopping::Drain);
    let farewell = "421 4.3.2 shutting down, come back ";
    assert!(idle.reply().await.0.starts_with(farewell));
    assert_eq!(first.reply().await.0, "250 2.0.0 Ok: queued as HOP\r\n");
    assert!(first.reply().await.0.starts_with(farewell));
    rig.stop(Stopping::Now);
    assert!(thinking.reply().await.0.starts_with(farewell));
    assert_eq!(second.reply().await.0, "250 2.0.0 Ok: queued as HOP\r\n");
    assert!(third.reply().await.0.starts_with("451 4.4.2 no answer to the final dot "));
    for client in [&mut second, &mut third] {
        assert!(client.reply().await.0.starts_with(farewell));
        assert_eq!(client.line().await, None);
    }
    let replies: Vec<String> = log(&rig).await.lines().map(reply_in).collect();
    assert_eq!(replies.len(), 3);
    assert!(replies[0].starts_with("250 ") && replies[1].starts_with("250 "), "{replies:?}");
    assert!(replies[2].starts_with("451 "), "{replies:?}");
}

/// The lines of the audit log.
async fn log(rig: &Rig) -> String {
    rig.guard().trail().flush().await.unwrap();
    String::from_utf8(rig.disk.bytes(rig.guard().trail().path()).unwrap()).unwrap()
}

fn reply_in(line: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    record["reply"].as_str().unwrap_or_default().to_owned()
}

/// A client that gives a byte now and then does not keep its share of memory for ever.
#[tokio::test(start_paused = true)]
async fn a_message_comes_in_within_its_time() {
    let (hop, rig) = rig("").await;
    let mut client = rig.client().await;
    client.send("MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n").await;
    assert_eq!(client.replies(3).await, [250, 250, 354]);
    let began = Instant::now();
    let pause = CONTENT_DEADLINE / 2;
    while began.elapsed() + pause < MESSAGE_TIME_MAX {
        client.send("x").await;
        sleep(pause).await;
    }
    let said = client.reply().await;
    assert!(said.0.starts_with("421 4.4.2 "), "{said:?}");
    assert!(began.elapsed() <= MESSAGE_TIME_MAX + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(hop.taken().is_empty());
}

/// Nor does it keep its place for ever by a byte of a command now and then.
#[tokio::test(start_paused = true)]
async fn a_command_comes_in_within_its_time() {
    let (_, rig) = rig("").await;
    let mut client = rig.client().await;
    let began = Instant::now();
    let pause = CLIENT_IDLE_DEADLINE / 4;
    while began.elapsed() + pause < CLIENT_IDLE_DEADLINE {
        client.send("N").await;
        sleep(pause).await;
    }
    client.send("N").await;
    let said = client.reply().await;
    assert!(said.0.starts_with("421 4.4.2 "), "{said:?}");
    assert!(began.elapsed() <= CLIENT_IDLE_DEADLINE + Duration::from_secs(1));
}

/// Recipients take room as messages do: a client that names too many is told to bring the rest
/// later, its message still passes, and the room is there again behind it.
#[tokio::test(start_paused = true)]
async fn recipients_take_room_and_give_it_back() {
    let long = "x".repeat(800);
    for from in ["ann@uni.example", ""] {
        let (hop, rig) = rig("memory_max = \"1MiB\"\ninspect_max = \"900KiB\"").await;
        let (mut one, mut other) = (rig.client().await, rig.client().await);
        assert_eq!(one.ask(&format!("MAIL FROM:<{from}>")).await.code(), 250);
        let mut codes = Vec::new();
        for n in 0..40 {
            let said = one.ask(&format!("RCPT TO:<{n}{long}@bank.example>")).await;
            assert!(said.code() == 250 || said.0.starts_with("452 4.3.1 too many recipients"));
            codes.push(said.code());
        }
        let accepted = codes.iter().filter(|code| **code == 250).count();
        assert!((10..40).contains(&accepted), "{codes:?}");
        // Whoever names one recipient needs no room for it.
        let said = other.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
        assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
        assert_eq!(one.ask("DATA").await.code(), 354);
        one.send([&letter("y")[..], b".\r\n"].concat()).await;
        let said = one.reply().await;
        assert_eq!(said.code(), 250, "{said:?}");
        assert_eq!(hop.taken().last().unwrap().rcpt.len(), accepted);
        assert_eq!(rig.front.budget_kib.available_permits(), 1024);
        for end in ["RSET", "QUIT"] {
            let mut client = rig.client().await;
            assert_eq!(client.ask(&format!("MAIL FROM:<{from}>")).await.code(), 250);
            for n in 0..40 {
                client.ask(&format!("RCPT TO:<{n}{long}@bank.example>")).await;
            }
            client.ask(end).await;
            sleep(Duration::from_secs(1)).await;
            assert_eq!(rig.front.budget_kib.available_permits(), 1024, "{end}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn memory_for_one_message_is_enough_for_one_message() {
    let (_, rig) = rig("memory_max = \"1MiB\"\ninspect_max = \"1MiB\"").await;
    let mut client = rig.client().await;
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
}

const ALL_OUT: &str =
    "inspect_max = \"16KiB\"\n[[policy.rule]]\nname = \"all\"\naction = \"deliver\"";

fn long_reply() -> Vec<u8> {
    let head = b"From: <ann@uni.example>\r\nAuto-Submitted: auto-replied\r\n\r\n";
    [&head[..], &b"A line of the reply.\r\n".repeat(2000)].concat()
}

/// A quarantine without room must not stop what is not to be held.
#[tokio::test(start_paused = true)]
async fn a_message_to_deliver_needs_no_room_in_the_quarantine() {
    let (hop, rig) = rig(ALL_OUT).await;
    rig.disk.set_faults(Faults { open: true, ..Faults::default() });
    let mut client = rig.client().await;
    let said = client.mail("", &["joe@shop.example"], &long_reply()).await;
    assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
    assert_eq!(hop.taken()[0].original(), long_reply());
    // One that turns out to hold a false end below cannot be held either: the client keeps it.
    let strange = [&long_reply()[..], b"\n.\n"].concat();
    let said = client.mail("", &["joe@shop.example"], &[&strange[..], b"\r\n"].concat()).await;
    assert!(said.last().unwrap().0.starts_with("451 4.3.1 "), "{said:?}");
    assert_eq!(hop.taken().len(), 1);
}

/// The next hop has it: its record waits in memory until the log can be written again.
#[tokio::test(start_paused = true)]
async fn the_record_of_a_delivery_is_not_lost_with_the_log() {
    let (hop, rig) = rig(ALL_OUT).await;
    let disk = rig.disk.clone();
    hop.moody(Box::new(move |stage, _| {
        let write = stage == Stage::Dot;
        disk.set_faults(Faults { write, ..Faults::default() });
        None
    }));
    let mut client = rig.client().await;
    let said = client.mail("", &["joe@shop.example"], &long_reply()).await;
    assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
    rig.disk.set_faults(Faults::default());
    let replies: Vec<String> = log(&rig).await.lines().map(reply_in).collect();
    assert_eq!(replies, ["250 2.0.0 Ok: queued as HOP"]);
}

/// A thousand recipients, sent along, some refused: each has its own reply, in order, and only the
/// accepted ones get the message.
#[tokio::test(start_paused = true)]
async fn a_thousand_recipients() {
    for pipelining in [true, false] {
        for from in ["ann@uni.example", ""] {
            let (hop, rig) = rig("").await;
            if !pipelining {
                hop.offers(&["SIZE 0"]);
            }
            let no = Act::Say("550 5.1.1 gone\r\n".to_owned());
            hop.order(Stage::Rcpt, "7@", no, usize::MAX);
            let mut client = rig.client().await;
            let to: Vec<String> = (0..1000).map(|n| format!("joe{n}@bank.example")).collect();
            let refused = |n: usize| n % 10 == 7;
            let names: Vec<&str> = to.iter().map(String::as_str).collect();
            let said = client.mail(from, &names, &letter("all")).await;
            let codes: Vec<u16> = said.iter().map(Said::code).collect();
            assert_eq!((codes[0], codes[1001], codes[1002]), (250, 354, 250));
            for (n, code) in codes[1..1001].iter().enumerate() {
                let no = refused(n) && !from.is_empty();
                assert_eq!(*code, if no { 550 } else { 250 }, "recipient {n}");
            }
            let taken = hop.taken();
            assert_eq!(taken.len(), 1);
            let right = |n: &usize| !refused(*n);
            let expected: Vec<String> =
                (0..1000).filter(right).map(|n| format!("RCPT TO:<{}>", to[n])).collect();
            assert_eq!(taken[0].rcpt, expected);
            // With <> we had said yes to all of them: what cannot go is held.
            assert_eq!(rig.held().await.len(), usize::from(from.is_empty()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recipients_past_the_bound_are_for_later() {
    let (hop, rig) = rig("").await;
    let mut client = rig.client().await;
    client.ask("MAIL FROM:<>").await;
    let all: String =
        (0..RECIPIENTS_MAX + 1).map(|n| format!("RCPT TO:<joe{n}@bank.example>\r\n")).collect();
    client.send(all).await;
    assert!(client.replies(RECIPIENTS_MAX).await.iter().all(|code| *code == 250));
    assert!(client.reply().await.0.starts_with("452 4.5.3 "));
    assert_eq!(client.ask("DATA").await.code(), 354);
    client.send(".\r\n").await;
    assert_eq!(client.reply().await.code(), 250);
    assert_eq!(hop.taken()[0].rcpt.len(), RECIPIENTS_MAX);
}

/// Messages in memory are bounded: who finds no room is told 452 and may come again.
#[tokio::test(start_paused = true)]
async fn messages_in_flight_are_bounded() {
    let (hop, rig) = rig("memory_max = \"1MiB\"").await;
    hop.at(Stage::Dot, Act::Late(Duration::from_secs(40)));
    let commands = "MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n";
    let mut clients = Vec::new();
    let began = Instant::now();
    // Room for four shares of `inspect_max`.
    for _ in 0..5 {
        let mut client = rig.client().await;
        client.send(commands).await;
        assert_eq!(client.replies(2).await, [250, 250]);
        clients.push(client);
    }
    for client in &mut clients[..4] {
        assert_eq!(client.reply().await.code(), 354);
    }
    assert!(clients[4].reply().await.0.starts_with("452 4.3.1 too many messages in flight"));
    assert_eq!(began.elapsed().as_secs(), BUDGET_WAIT_MAX.as_secs());
    for client in &mut clients[..4] {
        client.send([&letter("x")[..], b".\r\n"].concat()).await;
    }
    for client in &mut clients[..4] {
        assert_eq!(client.reply().await.code(), 250);
    }
    let said = clients[4].mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250);
}

/// Whatever a client says, and however its bytes are cut: pipelined it hears the same replies as
/// when it waits for each of them.
#[tokio::test(start_paused = true)]
async fn pipelining_changes_no_reply() {
    const LINES: &[&str] = &[
        "EHLO c.example",
        "HELO c.example",
        "MAIL FROM:<ann@uni.example>",
        "MAIL FROM:<ann@uni.example> SIZE=100",
        "MAIL FROM:<no@uni.example>",
        "MAIL FROM:<>",
        "MAIL FROM:<> RET=X",
        "RCPT TO:<joe@bank.example>",
        "RCPT TO:<eve@bank.example> NOTIFY=NEVER",
        "RCPT TO:<gone@bank.example>",
        "RCPT TO:<grey@bank.example>",
        "RCPT TO:<joe>",
        "RCPT TO:<>",
        "DATA",
        "DATA",
        "RSET",
        "NOOP",
        "VRFY joe",
        "FROB",
        "XFORWARD NAME=a.example",
        "BDAT 3 LAST",
    ];
    for seed in 0..100 {
        let mut random = Random(seed);
        let (hop, rig) = rig("").await;
        let says = |reply: &str| Act::Say(format!("{reply}\r\n"));
        hop.order(Stage::Mail, "no@", says("550 5.7.1 not you"), usize::MAX);
        hop.order(Stage::Rcpt, "gone@", says("550 5.1.1 gone"), usize::MAX);
        hop.order(Stage::Rcpt, "grey@", says("450 4.7.1 grey"), usize::MAX);
        if seed % 3 == 0 {
            hop.offers(&["SIZE 1000", "DSN"]);
        }
        let mut wire = Vec::new();
        let mut waited = Vec::new();
        let mut client = rig.client().await;
        for _ in 0..40 {
            let line = format!("{}\r\n", LINES[random.below(LINES.len())]);
            wire.extend_from_slice(line.as_bytes());
            client.send(line).await;
            let said = client.reply().await;
            waited.push(said.code());
            if said.code() == 354 {
                let message = [&letter("x")[..], b"..\r\n.\r\n"].concat();
                wire.extend_from_slice(&message);
                client.send(message).await;
                waited.push(client.reply().await.code());
            }
        }
        let once = hop.taken().len();
        let mut client = rig.client().await;
        let heard = send_in_pieces(&mut client, &wire, waited.len(), &mut random).await;
        assert_eq!(heard, waited, "seed {seed}: {}", String::from_utf8_lossy(&wire));
        assert_eq!(hop.taken().len(), 2 * once, "seed {seed}");
    }
}

async fn send_in_pieces<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    client: &mut Client<S>,
    wire: &[u8],
    replies: usize,
    random: &mut Random,
) -> Vec<u16> {
    let mut rest = wire;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(300)));
        client.send(piece).await;
        if random.below(3) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        rest = after;
    }
    client.replies(replies).await
}
