//! The shipped configuration: what it leads to the guard, and that nothing goes round.
//!
//! A pass-through stands where the guard will stand. How often a message went through shows in its
//! `Received` lines, or in which of two sinks it ends.

use std::net::SocketAddr;

use crate::claim::Port;
use crate::client::{Client, Door, Mail};
use crate::mail::{field, forged_bounce, header, letter, vacation_reply};
use crate::pass::Pass;
use crate::servers::exim::{self, Exim};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{Which, missing};
use crate::sink::{Act, Protocol, Sink, Stage};

const VICTIM: &str = "victim@victim.example";
const ALICE: &str = "alice@ours.example";
/// Forwards to a host that refuses.
const BOB: &str = "bob@ours.example";
const BOB_OUTSIDE: &str = "bob@far.example";
const CAROL: &str = "carol@far.example";

fn refuse_bob(sink: &Sink) {
    sink.order(Stage::Rcpt, BOB_OUTSIDE, Act::Say("550 5.7.1 Looks like spam"), usize::MAX);
}

/// A forged letter that is forwarded, refused and so bounced; and a personal one from inside.
fn bounce_and_letter(border: Door, submission: SocketAddr) {
    let mut outside = Client::from_outside(border, "192.0.2.55", "mail.forger.example");
    outside.deliver(&Mail::new(VICTIM, &[BOB], letter(VICTIM, BOB, "spam")));
    let mut inside = Client::open(submission);
    inside.deliver(&Mail::new(ALICE, &[CAROL], letter(ALICE, CAROL, "personal")));
}

/// How many servers took the message.
fn received(message: &[u8]) -> usize {
    header(message).iter().filter(|(name, _)| name.eq_ignore_ascii_case("Received")).count()
}

#[test]
fn postfix_a_leads_everything_through_the_guard() {
    if missing() {
        return;
    }
    let keywords = ["XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT", "8BITMIME", "DSN"];
    let sink = Sink::announcing(Protocol::Smtp, &keywords);
    refuse_bob(&sink);
    let guard = Pass::to(sink.address());
    let settings = postfix::Settings::default().forward(BOB, BOB_OUTSIDE);
    let postfix = Postfix::start(&settings.variant_a(guard.address()));

    bounce_and_letter(postfix.border(), postfix.submission());
    postfix.sendmail("cron@ours.example", &[CAROL], b"Subject: from a program\n\nDone.\n");

    // What Postfix says of a message's origin (XFORWARD_README): nothing but LOCAL for what was made
    // on this host; LOCAL as well for a client on this host, but with its address.
    let bounce = sink.wait_for_text("Action: failed");
    assert_eq!(bounce.addresses(), [VICTIM]);
    assert_eq!(bounce.xforward, ["SOURCE=LOCAL"]);
    assert_eq!(sink.wait_for_text("Subject: from a program").xforward, ["SOURCE=LOCAL"]);
    let personal = sink.wait_for_text("letter personal").xforward;
    assert!(personal.contains(&"ADDR=127.0.0.1".to_owned()), "{personal:?}");
    postfix.drained();
    assert_eq!(guard.messages().len(), 3);
    assert!(guard.messages().contains(&bounce.message));
}

#[test]
fn postfix_b_leads_the_null_sender_through_the_guard() {
    if missing() {
        return;
    }
    let (smarthost, behind_guard) = (Sink::smtp(), Sink::smtp());
    refuse_bob(&smarthost);
    let guard = Pass::to(behind_guard.address());
    let settings = postfix::Settings::default().forward(BOB, BOB_OUTSIDE);
    let postfix = Postfix::start(&settings.variant_b(guard.address(), smarthost.address()));

    bounce_and_letter(postfix.border(), postfix.submission());

    behind_guard.wait_for_text("Action: failed");
    smarthost.wait_for_text("letter personal");
    postfix.drained();
    assert_eq!((behind_guard.taken().len(), smarthost.taken().len()), (1, 1));
}

/// How many times a Postfix with variant C took the bounce and the letter.
fn postfix_c(which: Which) -> (usize, usize) {
    let sink = Sink::smtp();
    refuse_bob(&sink);
    let back = Port::claim();
    let guard = Pass::to(back.address());
    let settings = postfix::Settings::default()
        .next_hop(sink.address())
        .forward(BOB, BOB_OUTSIDE)
        .variant_c(guard.address(), &back, which);
    let postfix = Postfix::start(&settings);

    bounce_and_letter(postfix.border(), postfix.submission());

    let bounce = sink.wait_for_text("Action: failed");
    let letter = sink.wait_for_text("Subject: letter personal");
    postfix.drained();
    assert_eq!(sink.taken().len(), 2);
    (received(&bounce.message), received(&letter.message))
}

#[test]
fn postfix_c_leads_automatic_mail_through_the_guard_once() {
    if !missing() {
        assert_eq!(postfix_c(Which::Automatic), (2, 1));
    }
}

#[test]
fn postfix_c_leads_everything_through_the_guard_once() {
    if !missing() {
        assert_eq!(postfix_c(Which::Everything), (2, 2));
    }
}

/// How many times an Exim that takes mail back from the guard took the bounce and the letter.
fn exim(which: Which) -> (usize, usize) {
    let sink = Sink::smtp();
    refuse_bob(&sink);
    let back = Port::claim();
    let guard = Pass::to(back.address());
    let settings = exim::Settings { next_hop: Some(sink.address()), ..exim::Settings::default() };
    let settings = settings.forward("bob", BOB_OUTSIDE).shipped(guard.address(), &back, which);
    let exim = Exim::start(&settings);

    bounce_and_letter(exim.border(), exim.submission());

    let bounce = sink.wait_for_text("Action: failed");
    let letter = sink.wait_for_text("Subject: letter personal");
    exim.drained();
    assert_eq!((sink.taken().len(), exim.frozen()), (2, 0));
    (received(&bounce.message), received(&letter.message))
}

#[test]
fn exim_leads_automatic_mail_through_the_guard_once() {
    if !missing() {
        assert_eq!(exim(Which::Automatic), (2, 1));
    }
}

#[test]
fn exim_leads_everything_through_the_guard_once() {
    if !missing() {
        assert_eq!(exim(Which::Everything), (2, 2));
    }
}

/// Goal: what tells other people's automatic mail from our own. Method: a bounce and a vacation
/// from outside to a user who forwards; they leave with the null sender, and their own header shows
/// at the border a client outside.
fn others_automatic_mail(border: Door, sink: &Sink) {
    let mut client = Client::from_outside(border, "192.0.2.77", "mail.elsewhere.example");
    client.deliver(&Mail::new("", &[BOB], forged_bounce(BOB, "theirs")));
    client.deliver(&Mail::new("", &[BOB], vacation_reply("dave@elsewhere.example", BOB, "9")));
    for text in ["<theirs@far.example>", "auto-replied (vacation)"] {
        let forwarded = sink.wait_for_text(text);
        assert_eq!((forwarded.reverse_path.as_str(), forwarded.addresses()), ("", vec![CAROL]));
        let border = field(&forwarded.message, "Received").unwrap();
        assert!(border.contains("192.0.2.77") && border.contains("by mx.ours.example"), "{border}");
    }
}

#[test]
fn postfix_forwards_others_automatic_mail_with_its_border_line() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let settings = postfix::Settings::default().next_hop(sink.address()).forward(BOB, CAROL);
    let postfix = Postfix::start(&settings);
    others_automatic_mail(postfix.border(), &sink);
    postfix.drained();
}

#[test]
fn exim_forwards_others_automatic_mail_with_its_border_line() {
    if missing() {
        return;
    }
    let sink = Sink::smtp();
    let settings = exim::Settings { next_hop: Some(sink.address()), ..exim::Settings::default() };
    let exim = Exim::start(&settings.forward("bob", CAROL));
    others_automatic_mail(exim.border(), &sink);
    exim.drained();
}
