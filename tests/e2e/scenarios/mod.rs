//! The guard between real servers: what it is there for, and what must never happen.

mod auth;
mod bounces;
mod crash;
mod daemon;
mod disk;
mod everything;
mod flood;
mod forwards;
mod freezing;
mod lmtp;
mod loops;
mod outage;
mod rings;
mod rings_of_many;
mod routing;
mod setup;
mod stages;
mod talks;
mod tls;

use std::net::SocketAddr;

use crate::client::{Client, Door, Mail};
use crate::mail::letter;
use crate::servers::{exim, postfix};
use crate::sink::{Act, Sink, Stage};

/// A forged sender, who must get nothing.
const VICTIM: &str = "victim@victim.example";
/// A sender who is who he says.
const FRIEND: &str = "friend@friend.example";
/// Of whom nobody knows anything.
const STRANGER: &str = "stranger@stranger.example";
/// One of our users.
const ALICE: &str = "alice@ours.example";
/// Somebody outside.
const BOB: &str = "bob@far.example";
/// Whom the next hop refuses.
const NOBODY: &str = "nobody@branch.example";
/// Whom the next hop keeps waiting.
const SLOW: &str = "slow@branch.example";

/// Whom his mailbox refuses: the bounce needs no next hop to come into being.
const GONE: &str = "gone@ours.example";

/// What our border says of mail from `victim.example`.
const FORGED: &str = "mx.ours.example; spf=fail smtp.mailfrom=victim.example";
/// What it says of mail from `friend.example`.
const GENUINE: &str = "mx.ours.example; spf=pass smtp.mailfrom=friend.example";

/// Hands in a letter at the border, as a host of nobody's does.
fn from_far(border: Door, from: &str, to: &str, id: &str) {
    let mut client = Client::from_outside(border, "192.0.2.55", "mail.forger.example");
    client.deliver(&Mail::new(from, &[to], letter(from, to, id)));
}

/// The next hop knows only too late who is not there.
fn refuse_nobody(sink: &Sink) {
    sink.order(Stage::Rcpt, NOBODY, Act::Say("550 5.1.1 No such user"), usize::MAX);
    sink.order(Stage::Rcpt, SLOW, Act::Say("451 4.2.0 Later"), usize::MAX);
}

/// The mailboxes of `ours.example`, without `gone`.
fn mailboxes() -> Sink {
    let mailboxes = Sink::lmtp();
    mailboxes.order(Stage::Rcpt, GONE, Act::Say("550 5.1.1 No such user"), usize::MAX);
    mailboxes
}

/// A Postfix that takes mail for `branch.example` without knowing its users.
fn postfix_host() -> postfix::Settings {
    postfix::Settings::default()
        .set("relay_domains", "branch.example")
        .authentication_results("victim.example", FORGED)
        .authentication_results("friend.example", GENUINE)
}

/// The same as an Exim, all of whose mail to the outside goes to the guard.
fn exim_host(guard: SocketAddr) -> exim::Settings {
    let settings = exim::Settings {
        next_hop: Some(guard),
        acl_rcpt: "  accept domains = branch.example\n".to_owned(),
        ..exim::Settings::default()
    };
    settings
        .authentication_results("victim.example", FORGED)
        .authentication_results("friend.example", GENUINE)
}
