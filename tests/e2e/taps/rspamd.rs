//! rspamd as the milter of a real Postfix: what its exporter posts decides about replies.

use crate::claim::Port;
use crate::client::Mail;
use crate::mail::letter;
use crate::servers::missing;
use crate::servers::rspamd::Rspamd;
use crate::taps::Signer;
use crate::taps::host::{
    ALICE, AUTHENTICATED, Changes, FAILED, FORGER, GENUINE, MailHost, ZONE, outcome,
};
use crate::wait::until;

/// Goal: a site with rspamd needs no second milter. Method: the shipped lines of its exporter; a
/// user who is away gets genuine letters, by SPF and by signature alone, and forged ones.
#[test]
fn what_rspamd_posts_decides() {
    if missing() {
        return;
    }
    let (milter, tap) = (Port::claim(), Port::claim());
    let signers = ["signed.example", "spam.example"].map(Signer::of);
    let none: Vec<String> = Vec::new();
    let changes = Changes {
        guard: vec![
            ("tap.milter.listen", none.into()),
            ("tap.http.listen", vec![tap.address().to_string()].into()),
        ],
        postfix: vec![("smtpd_milters", format!("inet:127.0.0.1:{}", milter.number()))],
        ..Changes::default()
    };
    let zone = format!("{ZONE}{}\n{}\n", signers[0].zone(), signers[1].zone());
    let mut host = MailHost::with(&zone, changes);
    let _rspamd = Rspamd::start(milter, host.guard.dns().address(), tap.address());

    let joe = "joe@far.example";
    let record = host.judged(GENUINE, joe, ALICE, &letter(joe, ALICE, "1"));
    assert_eq!(outcome(&record), AUTHENTICATED);
    assert_eq!(record["match"]["tap"], "http");
    let eve = "eve@far.example";
    assert_eq!(host.outcome(FORGER, eve, ALICE, &letter(eve, ALICE, "2")), FAILED);
    let ann = "ann@signed.example";
    let signed = signers[0].sign(&letter(ann, ALICE, "3"));
    assert_eq!(host.outcome(FORGER, ann, ALICE, &signed), AUTHENTICATED);
    // His own DMARC passes; the answer would go to the victim.
    let spam = signers[1].sign(&letter("sales@spam.example", ALICE, "4"));
    assert_eq!(host.outcome(FORGER, "victim@bank.example", ALICE, &spam), FAILED);

    // Without the guard mail comes in, and the answers wait.
    host.guard.crash();
    let kim = "kim@far.example";
    host.from(GENUINE).deliver(&Mail::new(kim, &[ALICE], letter(kim, ALICE, "5")));
    host.guard.resume();
    until("the answer that has waited", || host.guard.audit_of(kim).pop());
}
