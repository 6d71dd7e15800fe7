//! What forwarded mail looks like: other people's bounces and replies, with a border line of ours.

use crate::client::{Client, Door, Mail};
use crate::mail::{field, forged_bounce, vacation_reply};
use crate::servers::exim::{self, Exim};
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::Sink;

/// Forwards to `CAROL`.
const BOB: &str = "bob@ours.example";
const CAROL: &str = "carol@far.example";

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
