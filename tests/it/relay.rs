//! The relay against next hops that stall, close, lie, refuse, go and come back.
//!
//! Goal: no message told 250 is lost or altered, none is delivered twice by us, sessions are
//! bounded. Method: the whole guard over connections in memory, on the paused clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use replyguard::mail::limits::{
    COMMAND_DEADLINE, CONNECT_DEADLINE, CONTENT_DEADLINE, DATA_DEADLINE, EHLO_AGE_MAX,
    FINAL_DEADLINE, FINAL_DEADLINE_ALONE, GREETING_DEADLINE, HOP_DOWN_FOR, SESSION_BARREN_MAX,
    SESSION_IDLE_MAX, SESSION_MESSAGES_MAX,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::disk::{Faults, ModelDisk};
use crate::hop::{Act, Fate, Hop, Net, Reach, Stage, USUAL};
use crate::rig::{Client, Rig, SITE, Said, config, letter};

const A: &str = "192.0.2.1:25";
const B: &str = "192.0.2.2:25";

/// The guard before these next hops, in their order.
async fn rig(more: &str, net: &Net, hops: &[&str]) -> Rig {
    let hops: Vec<String> = hops.iter().map(|hop| format!("{hop:?}")).collect();
    let text = format!("{SITE}[outbound]\nnext_hop = [{}]\n{more}\n", hops.join(", "));
    let config = config(&text, Path::new("/s"));
    Rig::new(&config, ModelDisk::default(), Arc::new(net.clone())).await
}

/// One next hop and the guard before it.
async fn one(keywords: &[&str]) -> (Hop, Net, Rig) {
    let hop = Hop::smtp(keywords);
    let net = Net::of(&[(A, &hop)]);
    let rig = rig("", &net, &[A]).await;
    (hop, net, rig)
}

/// Sends a letter from Ann to Joe on a session of its own; the last reply.
async fn one_letter(rig: &Rig, text: &str) -> Said {
    let mut client = rig.client().await;
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter(text)).await;
    said.last().unwrap().clone()
}

/// What stands in the audit log, a line a record.
async fn log(rig: &Rig) -> String {
    rig.guard().trail().flush().await.unwrap();
    let disk = rig.disk.bytes(rig.guard().trail().path()).unwrap();
    String::from_utf8(disk).unwrap()
}

const STAGES: &[Stage] = &[Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Content, Stage::Dot];

/// At the content: in the middle of it.
fn in_place(stage: Stage, act: Act) -> Act {
    match stage {
        Stage::Content => Act::After(700, Box::new(act)),
        _ => act,
    }
}

fn long_letter(text: &str) -> Vec<u8> {
    [letter(text), b"A line of the letter.\r\n".repeat(100)].concat()
}

#[tokio::test(start_paused = true)]
async fn a_letter_arrives_byte_for_byte_below_our_two_lines() {
    let (hop, _, rig) = one(USUAL).await;
    let mut client = rig.client().await;
    let message = [&letter("hello")[..], b"..\r\n.x\r\n\xff\0 bare \r and \n here\r\n"].concat();
    let stuffed = [&letter("hello")[..], b"...\r\n..x\r\n\xff\0 bare \r and \n here\r\n"].concat();
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &stuffed).await;
    assert_eq!(said.last().unwrap().0, "250 2.0.0 Ok: queued as HOP\r\n");
    let taken = hop.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].original(), message);
    assert_eq!(taken[0].mail, "MAIL FROM:<ann@uni.example>");
}

/// Whatever a next hop fails to do, and wherever: the client hears a 4xx within the deadline for
/// it, the session goes on, and nothing was delivered.
#[tokio::test(start_paused = true)]
async fn a_next_hop_that_stalls_drips_or_closes_costs_a_temporary_refusal() {
    for &stage in STAGES {
        for act in [Act::Stall, Act::Close, Act::Drip(Duration::from_secs(50))] {
            let (hop, _, rig) = one(USUAL).await;
            hop.at(stage, in_place(stage, act.clone()));
            let mut client = rig.client().await;
            let began = Instant::now();
            let message = [long_letter("x"), vec![b'y'; 300_000], b"\r\n".to_vec()].concat();
            let said = client.mail("ann@uni.example", &["joe@bank.example"], &message).await;
            let took = began.elapsed();
            let deadline = match (stage, &act) {
                (_, Act::Close) => Duration::ZERO,
                (Stage::Mail | Stage::Rcpt, _) => 2 * COMMAND_DEADLINE,
                (Stage::Data, _) => 2 * DATA_DEADLINE,
                _ => CONTENT_DEADLINE + FINAL_DEADLINE,
            };
            let last = said.last().unwrap();
            assert_eq!(last.code(), 451, "{stage:?} {act:?}: {said:?}");
            assert!(took <= deadline + Duration::from_secs(1), "{stage:?} {act:?}: {took:?}");
            assert!(hop.taken().is_empty());
            hop.behaves();
            let said = client.mail("ann@uni.example", &["joe@bank.example"], &message).await;
            assert_eq!(said.last().unwrap().code(), 250, "{stage:?} {act:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_next_hop_the_greeting_is_421() {
    for act in [Act::Stall, Act::Close, Act::Say("554 no\r\n".into()), Act::Say("huh\r\n".into())] {
        for stage in [Stage::Greeting, Stage::Hello] {
            let (hop, _, rig) = one(USUAL).await;
            hop.at(stage, act.clone());
            let began = Instant::now();
            let said = rig.connect().reply().await;
            assert!(said.0.starts_with("421 4.3.2 "), "{stage:?} {act:?}: {said:?}");
            assert!(began.elapsed() <= 2 * GREETING_DEADLINE, "{:?}", began.elapsed());
            hop.behaves();
            sleep(HOP_DOWN_FOR).await;
            assert_eq!(one_letter(&rig, "back").await.code(), 250);
        }
    }
    let (_, net, rig) = one(USUAL).await;
    for reach in [Reach::Refuses, Reach::Silent] {
        net.set(A, reach);
        assert_eq!(rig.connect().reply().await.code(), 421);
        net.set(A, Reach::Up);
        sleep(HOP_DOWN_FOR).await;
        assert_eq!(one_letter(&rig, "back").await.code(), 250);
        sleep(EHLO_AGE_MAX + SESSION_IDLE_MAX).await;
    }
}

/// What is no reply, or none to this command, is never taken for a yes.
#[tokio::test(start_paused = true)]
async fn a_next_hop_that_lies_is_not_believed() {
    let lies = [
        "hello there\r\n",
        "25\r\n",
        "+25 ok\r\n",
        "999 ok\r\n",
        "150 ok\r\n",
        "250_ok\r\n",
        "250-a\r\n251 b\r\n",
        "\r\n",
        "\0\0\0\r\n",
    ];
    for &stage in STAGES.iter().filter(|stage| **stage != Stage::Content) {
        for lie in lies {
            let (hop, _, rig) = one(USUAL).await;
            hop.at(stage, Act::Say(lie.to_owned()));
            let said = one_letter(&rig, "x").await;
            assert_eq!(said.code(), 451, "{stage:?} {lie:?}: {said:?}");
            assert!(hop.taken().is_empty() || stage == Stage::Dot);
        }
        for endless in ["250-and so on\r\n", "2", "250 ok\r\n"] {
            let (hop, _, rig) = one(USUAL).await;
            hop.at(stage, Act::Endless(endless));
            let said = one_letter(&rig, "x").await;
            // An endless row of proper replies says yes to the dot; it is the next hop's word.
            let believed = stage == Stage::Dot && endless == "250 ok\r\n";
            assert_eq!(said.code(), if believed { 250 } else { 451 }, "{stage:?} {endless:?}");
        }
    }
}

/// 354 means something behind DATA only, and 2xx behind DATA nothing at all.
#[tokio::test(start_paused = true)]
async fn a_reply_out_of_step_is_never_passed_on() {
    for (stage, reply) in [
        (Stage::Mail, "354 go on"),
        (Stage::Rcpt, "354 go on"),
        (Stage::Data, "250 ok"),
        (Stage::Data, "334 go on"),
        (Stage::Dot, "354 go on"),
    ] {
        let (hop, _, rig) = one(USUAL).await;
        hop.says(stage, reply);
        let mut client = rig.client().await;
        let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
        assert_eq!(said.last().unwrap().code(), 451, "{stage:?} {reply}: {said:?}");
        assert!(!said.iter().any(|said| said.0.contains("go on\r\n") && said.code() != 451));
        assert!(hop.taken().is_empty());
    }
}

/// A yes that comes before the final dot was sent is no answer to it.
#[tokio::test(start_paused = true)]
async fn an_early_final_reply_is_not_believed() {
    let (hop, _, rig) = one(USUAL).await;
    hop.order(Stage::Data, "", Act::Chatter("250 2.0.0 already queued\r\n"), 1);
    assert_eq!(one_letter(&rig, "early").await.code(), 451);
    assert!(hop.taken().is_empty());
    assert_eq!(one_letter(&rig, "early").await.code(), 250);
    assert_eq!(hop.taken().len(), 1);
}

/// One reply too many would answer the next command: the wrong recipient would be refused.
#[tokio::test(start_paused = true)]
async fn a_reply_too_many_ends_the_session_before_it_answers_another_command() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Dot, Stage::Rset] {
        let (hop, _, rig) = one(USUAL).await;
        hop.order(stage, "", Act::Chatter("250 2.0.0 and more\r\n"), 1);
        hop.order(Stage::Rcpt, "gone@", Act::Say("550 5.1.1 gone\r\n".into()), usize::MAX);
        let mut client = rig.client().await;
        if stage == Stage::Rset {
            client.ask("MAIL FROM:<ann@uni.example>").await;
            client.ask("RSET").await;
        }
        let to = ["joe@bank.example", "gone@bank.example", "eve@bank.example"];
        for round in 0..3 {
            let said = client.mail("ann@uni.example", &to, &letter("x")).await;
            let codes: Vec<u16> = said.iter().map(Said::code).collect();
            let right = codes == [250, 250, 550, 250, 354, 250];
            let later = codes.iter().all(|code| *code == 451);
            assert!(right || (later && round == 0), "{stage:?} {round}: {codes:?}");
        }
        for seen in hop.taken() {
            let to = ["RCPT TO:<joe@bank.example>", "RCPT TO:<eve@bank.example>"];
            assert_eq!(seen.rcpt, to, "{stage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_passed_on_byte_for_byte_at_every_stage() {
    for reply in ["450 4.7.1 later, \u{fc}ser \t \r\n", "550-5.7.1 no\r\n550 5.7.1  never \r\n"] {
        for (stage, at) in [(Stage::Mail, 0), (Stage::Rcpt, 1), (Stage::Data, 3), (Stage::Dot, 3)] {
            let (hop, _, rig) = one(USUAL).await;
            hop.at(stage, Act::Say(reply.to_owned()));
            let mut client = rig.client().await;
            let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
            assert_eq!(said[at].0, reply, "{stage:?}: {said:?}");
            assert!(hop.taken().is_empty());
            hop.behaves();
            client.ask("RSET").await;
            let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
            assert_eq!(said.last().unwrap().code(), 250);
        }
    }
}

/// Replies whose lines end in a bare LF are read, and passed on with CRLF.
#[tokio::test(start_paused = true)]
async fn a_reply_with_bare_line_ends_is_passed_on_with_sound_ones() {
    let (hop, _, rig) = one(USUAL).await;
    hop.at(Stage::Rcpt, Act::Say("550-5.1.1 no\n550 5.1.1 body\n".into()));
    let mut client = rig.client().await;
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said[1].0, "550-5.1.1 no\r\n550 5.1.1 body\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_421_before_the_dot_is_tried_once_more_on_a_fresh_session() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data] {
        let (hop, _, rig) = one(USUAL).await;
        hop.order(stage, "", Act::SayAndClose("421 4.3.2 stopping\r\n".into()), 1);
        let said = one_letter(&rig, "once").await;
        assert_eq!(said.code(), 250, "{stage:?}: {said:?}");
        assert_eq!((hop.taken().len(), hop.sessions()), (1, 2));
        hop.at(stage, Act::SayAndClose("421 4.3.2 stopping\r\n".into()));
        let said = one_letter(&rig, "always").await;
        assert_eq!(said.code(), 451, "{stage:?}: {said:?}");
        assert!(said.0.contains("421 4.3.2 stopping"), "{said:?}");
    }
}

/// A second try after the final dot could deliver twice.
#[tokio::test(start_paused = true)]
async fn after_the_final_dot_there_is_no_second_try() {
    let acts = [
        Act::Close,
        Act::TakeAndClose,
        Act::Stall,
        Act::SayAndClose("421 4.3.2 stopping\r\n".into()),
        Act::Say("huh\r\n".into()),
    ];
    for act in acts {
        let (hop, _, rig) = one(USUAL).await;
        hop.at(Stage::Dot, act.clone());
        let said = one_letter(&rig, "once").await;
        assert!([421, 451].contains(&said.code()), "{act:?}: {said:?}");
        assert_eq!(hop.seen().len(), 1, "{act:?}");
    }
}

/// The next hop may take its time with the final reply: a 451 of ours would deliver twice.
#[tokio::test(start_paused = true)]
async fn the_final_reply_is_waited_for() {
    let (hop, _, rig) = one(USUAL).await;
    hop.at(Stage::Dot, Act::Late(FINAL_DEADLINE - Duration::from_secs(1)));
    assert_eq!(one_letter(&rig, "slow").await.code(), 250);
    assert_eq!(hop.taken().len(), 1);
}

/// The client leaves while the next hop thinks: what came of it still stands in the log.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_does_not_undo_what_the_next_hop_took() {
    for (late, reply) in [
        (FINAL_DEADLINE_ALONE / 2, "250 2.0.0 Ok: queued as HOP"),
        (FINAL_DEADLINE_ALONE * 2, "451 4.4.2 no answer to the final dot"),
    ] {
        let (hop, net, rig) = one(USUAL).await;
        hop.at(Stage::Dot, Act::Late(late));
        let mut client = rig.client().await;
        client.send("MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n").await;
        assert_eq!(client.replies(3).await, [250, 250, 354]);
        client.send([&letter("gone")[..], b".\r\n"].concat()).await;
        sleep(Duration::from_secs(1)).await;
        drop(client);
        sleep(FINAL_DEADLINE).await;
        assert_eq!(hop.taken().len(), 1);
        let log = log(&rig).await;
        assert_eq!(log.lines().count(), 1);
        assert!(log.contains(reply), "{log}");
        rig.guard().relay().tidy().await;
        assert_eq!(net.open(), 0);
    }
}

/// A client that goes in the middle of its message leaves nothing behind, and the next hop hears
/// no final dot.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_in_the_middle_delivers_nothing() {
    let (hop, _, rig) = one(USUAL).await;
    for size in [10, 100_000, 400_000] {
        let mut client = rig.client().await;
        client.send("MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\nDATA\r\n").await;
        assert_eq!(client.replies(3).await, [250, 250, 354]);
        client.send(vec![b'x'; size]).await;
        drop(client);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(hop.seen().iter().all(|seen| seen.fate == Fate::Broken), "{:?}", hop.seen().len());
    assert!(hop.seen().len() <= 1);
    assert!(log(&rig).await.is_empty());
}

/// A recipient that was refused stays refused, also when a fresh session would take it: the client
/// has been told, and will send to it again.
#[tokio::test(start_paused = true)]
async fn a_fresh_session_hears_only_of_recipients_that_were_accepted() {
    for lmtp in [false, true] {
        let hop = if lmtp { Hop::lmtp(USUAL) } else { Hop::smtp(USUAL) };
        let net = Net::of(&[(A, &hop)]);
        let (name, more) = match lmtp {
            true => (format!("lmtp:{A}"), "protocol = \"lmtp\""),
            false => (A.to_owned(), ""),
        };
        let rig = rig(more, &net, &[&name]).await;
        hop.order(Stage::Rcpt, "grey@", Act::Say("450 4.7.1 grey\r\n".into()), 1);
        hop.order(Stage::Data, "", Act::SayAndClose("421 4.3.2 stopping\r\n".into()), 1);
        let mut client = rig.client().await;
        let to = ["grey@bank.example", "joe@bank.example"];
        let said = client.mail("ann@uni.example", &to, &letter("x")).await;
        let codes: Vec<u16> = said.iter().map(Said::code).collect();
        assert_eq!(codes, [250, 450, 250, 354, 250]);
        assert_eq!(hop.taken()[0].rcpt, ["RCPT TO:<joe@bank.example>"]);
        assert_eq!(client.ask("NOOP").await.code(), 250);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_fresh_session_refuses_is_temporary() {
    let (hop, _, rig) = one(USUAL).await;
    let mut client = rig.client().await;
    assert_eq!(client.ask("MAIL FROM:<ann@uni.example>").await.code(), 250);
    assert_eq!(client.ask("RCPT TO:<joe@bank.example>").await.code(), 250);
    hop.order(Stage::Rcpt, "eve@", Act::SayAndClose("421 4.3.2 stopping\r\n".into()), 1);
    hop.says(Stage::Rcpt, "550 5.1.1 gone");
    assert_eq!(client.ask("RCPT TO:<eve@bank.example>").await.code(), 451);
    // A 503 would make the client bounce it.
    assert_eq!(client.ask("RCPT TO:<max@bank.example>").await.code(), 451);
    assert_eq!(client.ask("DATA").await.code(), 451);
    assert_eq!(client.ask("RSET").await.code(), 250);
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_fails_is_passed_over_and_used_again_when_it_is_back() {
    let (a, b) = (Hop::smtp(USUAL), Hop::smtp(USUAL));
    let net = Net::of(&[(A, &a), (B, &b)]);
    let rig = rig("", &net, &[A, B]).await;
    assert_eq!(one_letter(&rig, "one").await.code(), 250);
    assert_eq!((a.taken().len(), b.taken().len()), (1, 0));
    net.set(A, Reach::Refuses);
    a.at(Stage::Mail, Act::Close);
    for _ in 0..3 {
        assert_eq!(one_letter(&rig, "two").await.code(), 250);
    }
    assert_eq!((a.taken().len(), b.taken().len()), (1, 3));
    net.set(A, Reach::Up);
    a.behaves();
    sleep(HOP_DOWN_FOR).await;
    assert_eq!(one_letter(&rig, "three").await.code(), 250);
    assert_eq!((a.taken().len(), b.taken().len()), (2, 3));
    net.set(A, Reach::Refuses);
    net.set(B, Reach::Refuses);
    sleep(SESSION_IDLE_MAX + Duration::from_secs(1)).await;
    let said = one_letter(&rig, "four").await;
    assert!(said.0.starts_with("451 4.4.1 no next hop takes mail now"), "{said:?}");
}

/// A next hop that never answers a connection costs one client its deadline, not every one.
#[tokio::test(start_paused = true)]
async fn a_silent_next_hop_does_not_hold_up_everybody() {
    let (a, b) = (Hop::smtp(USUAL), Hop::smtp(USUAL));
    let net = Net::of(&[(A, &a), (B, &b)]);
    let rig = rig("next_hop_sessions_max = 100", &net, &[A, B]).await;
    assert_eq!(one_letter(&rig, "one").await.code(), 250);
    net.set(A, Reach::Silent);
    sleep(SESSION_IDLE_MAX + Duration::from_secs(1)).await;
    let mut waited = Vec::new();
    for _ in 0..60 {
        let began = Instant::now();
        assert_eq!(one_letter(&rig, "two").await.code(), 250);
        waited.push(began.elapsed());
        sleep(Duration::from_secs(1)).await;
    }
    let long = waited.iter().filter(|time| **time > Duration::from_secs(1)).count();
    assert!(long <= 1 + 60 / 15, "{long} of 60 waited: {waited:?}");
    assert!(waited.iter().all(|time| *time <= CONNECT_DEADLINE + Duration::from_secs(1)));
}

/// A next hop that hangs in its greeting must not make every new session wait for it.
#[tokio::test(start_paused = true)]
async fn greetings_do_not_wait_for_a_next_hop_that_hangs() {
    let (a, b) = (Hop::smtp(USUAL), Hop::smtp(USUAL));
    a.at(Stage::Greeting, Act::Stall);
    let net = Net::of(&[(A, &a), (B, &b)]);
    let rig = rig("", &net, &[A, B]).await;
    assert_eq!(rig.connect().reply().await.code(), 220);
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(rig.connect().reply().await.code(), 220);
        assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
        sleep(Duration::from_secs(7)).await;
    }
}

/// Law 11: what only some next hops can do is not promised; what one has unlearned is not asked of
/// it.
#[tokio::test(start_paused = true)]
async fn nothing_is_promised_that_a_next_hop_does_not_keep() {
    let (a, b) = (Hop::smtp(USUAL), Hop::smtp(&["PIPELINING", "SIZE 10000", "DSN"]));
    let net = Net::of(&[(A, &a), (B, &b)]);
    let rig = rig("", &net, &[A, B]).await;
    let mut client = rig.connect();
    client.reply().await;
    let offered = client.ask("EHLO c.example").await.0;
    assert!(offered.contains("SIZE 7952\r\n") && offered.contains("DSN\r\n"), "{offered}");
    assert!(!offered.contains("8BITMIME") && !offered.contains("SMTPUTF8"), "{offered}");
    // A forgets DSN: who asks for it goes to B.
    a.offers(&["PIPELINING", "SIZE 10000"]);
    sleep(SESSION_IDLE_MAX + Duration::from_secs(1)).await;
    let ask = async |client: &mut Client<_>, line: &str| client.ask(line).await.code();
    assert_eq!(ask(&mut client, "MAIL FROM:<ann@uni.example> RET=HDRS").await, 250);
    assert_eq!(ask(&mut client, "RSET").await, 250);
    assert!(b.lines().contains(&"MAIL FROM:<ann@uni.example> RET=HDRS".to_owned()));
    assert_eq!(ask(&mut client, "MAIL FROM:<ann@uni.example>").await, 250);
    assert!(a.lines().contains(&"MAIL FROM:<ann@uni.example>".to_owned()));
    // The same when only the recipient asks for it.
    assert_eq!(ask(&mut client, "RCPT TO:<joe@bank.example> NOTIFY=NEVER").await, 250);
    assert!(!a.lines().iter().any(|line| line.contains("NOTIFY")));
    assert_eq!(ask(&mut client, "RSET").await, 250);
    // B forgets it too: nobody is left.
    b.offers(&["PIPELINING"]);
    sleep(SESSION_IDLE_MAX + Duration::from_secs(1)).await;
    let said = client.ask("MAIL FROM:<ann@uni.example> RET=HDRS").await;
    assert!(said.0.starts_with("451 4.4.1 no next hop that can be reached offers RET"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_without_pipelining_gets_one_command_at_a_time() {
    let hop = Hop::smtp(&[]);
    // Had it two commands at once, it would say so.
    let waiting = Arc::new(std::sync::Mutex::new(0));
    let counted = Arc::clone(&waiting);
    hop.moody(Box::new(move |stage, _| {
        *counted.lock().unwrap() += 1;
        (stage == Stage::Mail).then(|| Act::Late(Duration::from_secs(5)))
    }));
    let net = Net::of(&[(A, &hop)]);
    let rig = rig("", &net, &[A]).await;
    let mut client = rig.client().await;
    client.send("MAIL FROM:<ann@uni.example>\r\nRCPT TO:<joe@bank.example>\r\n").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hop.lines().last().unwrap(), "MAIL FROM:<ann@uni.example>");
    assert_eq!(client.replies(2).await, [250, 250]);
}

#[tokio::test(start_paused = true)]
async fn a_session_serves_so_many_messages_and_then_another_does() {
    let (hop, net, rig) = one(USUAL).await;
    let mut client = rig.client().await;
    for _ in 0..SESSION_MESSAGES_MAX + 1 {
        let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
        assert_eq!(said.last().unwrap().code(), 250);
    }
    assert_eq!((hop.sessions(), net.most()), (2, 2.min(net.most())));
    let of_first = hop.taken().iter().filter(|seen| seen.session == 0).count();
    assert_eq!(of_first, usize::try_from(SESSION_MESSAGES_MAX).unwrap());
    assert!(hop.commands().contains(&(0, "QUIT".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_delivers_nothing_is_given_up() {
    let (hop, _, rig) = one(USUAL).await;
    hop.says(Stage::Rcpt, "550 5.1.1 no");
    let mut client = rig.client().await;
    for _ in 0..SESSION_BARREN_MAX + 1 {
        let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
        assert_eq!(said.last().unwrap().code(), 554);
        client.ask("RSET").await;
    }
    assert_eq!(hop.sessions(), 2);
    // Exim cuts a client off at 12.
    let resets = hop.commands().iter().filter(|(_, line)| line == "RSET").count();
    assert!(resets <= 10, "{resets}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_closed_with_quit() {
    let (hop, net, rig) = one(USUAL).await;
    assert_eq!(one_letter(&rig, "x").await.code(), 250);
    assert_eq!(net.open(), 1);
    sleep(SESSION_IDLE_MAX + Duration::from_secs(1)).await;
    rig.guard().relay().tidy().await;
    assert_eq!(net.open(), 0);
    assert_eq!(hop.lines().last().unwrap(), "QUIT");
}

/// A kept session that the next hop has closed costs nobody anything.
#[tokio::test(start_paused = true)]
async fn a_kept_session_that_was_closed_is_replaced() {
    let (hop, net, rig) = one(USUAL).await;
    hop.order(Stage::Dot, "", Act::SayAndClose("250 2.0.0 queued\r\n".into()), 1);
    assert_eq!(one_letter(&rig, "x").await.code(), 250);
    for _ in 0..3 {
        assert_eq!(one_letter(&rig, "x").await.code(), 250);
    }
    assert_eq!((hop.taken().len(), hop.sessions(), net.open()), (4, 2, 1));
}

/// Law 8: at most so many connections, whatever two hundred clients do, and while next hops are
/// asked anew what they offer.
#[tokio::test(start_paused = true)]
async fn connections_are_bounded_and_nobody_starves() {
    let (a, b) = (Hop::smtp(USUAL), Hop::smtp(USUAL));
    for hop in [&a, &b] {
        hop.at(Stage::Dot, Act::Late(Duration::from_millis(100)));
        hop.at(Stage::Quit, Act::Stall);
    }
    let net = Net::of(&[(A, &a), (B, &b)]);
    let rig = Arc::new(rig("next_hop_sessions_max = 10", &net, &[A, B]).await);
    let mut clients = JoinSet::new();
    for number in 0..200_u64 {
        let rig = Arc::clone(&rig);
        clients.spawn(async move {
            let mut client = rig.client().await;
            for round in 0..5 {
                if number % 7 == 0 {
                    client.ask("MAIL FROM:<ann@uni.example>").await;
                    client.ask("RSET").await;
                }
                let text = format!("letter {number} {round}");
                let to = ["joe@bank.example"];
                let said = client.mail("ann@uni.example", &to, &letter(&text)).await;
                assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(a.taken().len() + b.taken().len(), 1000);
    assert!(net.most() <= 10, "{} connections", net.most());
    // Kept ones are used, not pushed out by new ones.
    assert!(net.tried() <= 30, "{} connections in all", net.tried());
}

#[tokio::test(start_paused = true)]
async fn asking_what_is_offered_needs_no_connection_too_many() {
    let (hop, net, _) = one(USUAL).await;
    let rig = rig("next_hop_sessions_max = 2", &net, &[A]).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = rig.client().await;
        assert_eq!(client.ask("MAIL FROM:<ann@uni.example>").await.code(), 250);
        busy.push(client);
    }
    // Longer than the EHLO is good for, but not longer than a client may idle.
    for _ in 0..2 {
        sleep(EHLO_AGE_MAX * 2 / 3).await;
        for client in &mut busy {
            client.ask("NOOP").await;
        }
    }
    let mut other = rig.client().await;
    assert_eq!(net.most(), 2);
    // Both are in use: later.
    let said = other.ask("MAIL FROM:<eve@uni.example>").await;
    assert_eq!(said.code(), 451);
    assert!(said.0.contains("all sessions with the next hop are in use"), "{said:?}");
    drop(busy);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.ask("MAIL FROM:<eve@uni.example>").await.code(), 250);
    assert!(net.most() <= 2 && hop.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn xforward_is_repeated_for_every_transaction_and_reset_comes_before_reuse() {
    let keywords = [USUAL, &["XFORWARD NAME ADDR PROTO IDENT SOURCE"]].concat();
    let (hop, _, rig) = one(&keywords).await;
    let mut client = rig.client().await;
    for round in 0..3 {
        let line = format!("XFORWARD NAME=c{round}.example ADDR=192.0.2.{round} PORT=25");
        assert_eq!(client.ask(&line).await.code(), 250);
        assert_eq!(client.ask(&format!("XFORWARD IDENT=Q{round}")).await.code(), 250);
        let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
        assert_eq!(said.last().unwrap().code(), 250);
    }
    // Nothing was said of its client: nothing of the one before it may stand.
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250);
    let given: Vec<Vec<String>> = hop.taken().into_iter().map(|seen| seen.xforward).collect();
    let of = |round: usize| {
        vec![
            format!("NAME=c{round}.example"),
            format!("ADDR=192.0.2.{round}"),
            format!("IDENT=Q{round}"),
        ]
    };
    assert_eq!(given, [of(0), of(1), of(2), vec![]]);
    assert_eq!(hop.sessions(), 1);
    // A transaction that was left is reset before the next one.
    client.ask("XFORWARD NAME=x.example").await;
    client.ask("MAIL FROM:<ann@uni.example>").await;
    client.ask("RSET").await;
    let said = client.mail("eve@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250);
    assert!(hop.taken().last().unwrap().xforward.is_empty());
    let lines = hop.lines();
    let left = lines.iter().rposition(|line| line == "MAIL FROM:<ann@uni.example>").unwrap();
    assert_eq!(lines[left + 1..left + 3], ["RSET", "MAIL FROM:<eve@uni.example>"]);
}

/// With LMTP those who were answered before the next hop died have their answer.
#[tokio::test(start_paused = true)]
async fn replies_that_came_before_the_next_hop_died_count() {
    let hop = Hop::lmtp(USUAL);
    let net = Net::of(&[(A, &hop)]);
    let rig = rig("protocol = \"lmtp\"", &net, &[&format!("lmtp:{A}")]).await;
    hop.order(Stage::Dot, "max@", Act::Close, 1);
    hop.order(Stage::Dot, "eve@", Act::Say("552 5.2.2 full\r\n".into()), 1);
    let mut client = rig.client().await;
    let to = ["joe@bank.example", "eve@bank.example", "max@bank.example", "tom@bank.example"];
    let said = client.mail("ann@uni.example", &to, &letter("x")).await;
    assert_eq!(said.last().unwrap().0, "250 2.0.0 Ok: queued as HOP\r\n");
    assert_eq!(client.reply().await.0, "552 5.2.2 full\r\n");
    for _ in 0..2 {
        let said = client.reply().await;
        assert!(said.0.starts_with("451 4.4.1 next hop ") && said.0.contains("closed"), "{said:?}");
    }
    assert_eq!(hop.taken()[0].rcpt, ["RCPT TO:<joe@bank.example>"]);
    assert_eq!(client.ask("NOOP").await.code(), 250);
}

/// 421 says that a connection will be closed; the client's will not.
#[tokio::test(start_paused = true)]
async fn a_next_hop_that_leaves_at_the_final_dot_is_a_temporary_refusal() {
    let (hop, _, rig) = one(USUAL).await;
    hop.order(Stage::Dot, "", Act::SayAndClose("421 4.3.2 stopping\r\n".into()), 1);
    let mut client = rig.client().await;
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert!(said.last().unwrap().0.starts_with("451 4.4.2 next hop: 4.3.2 stopping "), "{said:?}");
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250);
}

#[tokio::test(start_paused = true)]
async fn a_next_hop_that_knows_no_ehlo_is_greeted_with_helo() {
    let (hop, _, rig) = one(USUAL).await;
    hop.order(Stage::Hello, "EHLO", Act::Say("502 what?\r\n".into()), usize::MAX);
    hop.order(Stage::Hello, "HELO", Act::Say("250 old.example\r\n".into()), usize::MAX);
    let mut client = rig.connect();
    client.reply().await;
    let offered = client.ask("EHLO c.example").await.0;
    assert!(!offered.contains("DSN") && !offered.contains("8BITMIME"), "{offered}");
    let said = client.mail("ann@uni.example", &["joe@bank.example"], &letter("x")).await;
    assert_eq!(said.last().unwrap().code(), 250, "{said:?}");
    assert_eq!(hop.lines()[..2], ["EHLO guard.uni.example", "HELO guard.uni.example"]);
}

/// With the null reverse-path one mailbox that is full for days does not keep the others' copies
/// out: it may for four hours, by the message's own date; too many recipients may not at all.
#[tokio::test(start_paused = true)]
async fn one_recipient_who_cannot_have_it_now_keeps_the_others_waiting_for_a_while_only() {
    const YOUNG: &str = "Sat, 21 Nov 2026 17:00:00 +0000";
    const OLD: &str = "Sat, 21 Nov 2026 12:00:00 +0000";
    for (reply, date, held) in [
        ("452 4.2.2 mailbox full", YOUNG, false),
        ("452 4.2.2 mailbox full", OLD, true),
        ("452 4.5.3 too many recipients", YOUNG, true),
        ("550 5.1.1 unknown", YOUNG, true),
    ] {
        let (hop, _, rig) = one(USUAL).await;
        hop.order(Stage::Rcpt, "full@", Act::Say(format!("{reply}\r\n")), usize::MAX);
        let message = [format!("Date: {date}\r\n").into_bytes(), letter("hello")].concat();
        let to = ["joe@bank.example", "full@bank.example"];
        let said = rig.client().await.mail("", &to, &message).await;
        let code = if held { 250 } else { 452 };
        assert_eq!(said.last().unwrap().code(), code, "{reply} {date}: {said:?}");
        assert_eq!(hop.taken().len(), usize::from(held), "{reply} {date}");
        assert_eq!(rig.held().await.len(), usize::from(held), "{reply} {date}");
        assert_eq!(log(&rig).await.contains("next-hop-refuses"), held, "{reply} {date}");
    }
}

/// While only observing, no response waits because the audit log cannot be written.
#[tokio::test(start_paused = true)]
async fn whoever_only_observes_delivers_without_the_log_too() {
    for (mode, code) in [("enforce", 451), ("observe", 250)] {
        let hop = Hop::smtp(USUAL);
        let net = Net::of(&[(A, &hop)]);
        let site = SITE.replace("\"enforce\"", &format!("{mode:?}"));
        let config = config(&format!("{site}[outbound]\nnext_hop = [{A:?}]\n"), Path::new("/s"));
        let rig = Rig::new(&config, ModelDisk::default(), Arc::new(net)).await;
        let mut client = rig.client().await;
        let reply = |name: &str| [b"Auto-Submitted: auto-replied\r\n", &letter(name)[..]].concat();
        rig.disk.set_faults(Faults { write: true, ..Faults::default() });
        let first = client.mail("", &["joe@shop.example"], &reply("first")).await;
        assert_eq!(first.last().unwrap().code(), 250, "{mode}: {first:?}");
        let second = client.mail("", &["ann@shop.example"], &reply("second")).await;
        assert_eq!(second.last().unwrap().code(), code, "{mode}: {second:?}");
    }
}
