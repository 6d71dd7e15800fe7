//! The first ten minutes: the shipped minimal configuration, checked, run, observed, enforced.

use super::{ALICE, FORGED, FRIEND, GENUINE, GONE, VICTIM, mailboxes};
use crate::claim::Port;
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::mail::letter;
use crate::servers::dovecot::{self, Dovecot};
use crate::servers::postfix::{self, Postfix};
use crate::servers::{Which, missing, readme, shipped};
use crate::sink::Sink;
use crate::taps::host::{FORGER, GENUINE as GENUINE_CLIENT, ZONE};
use crate::wait::until;

/// Goal: what is shipped has no fault. Method: `check-config` on the files as they are.
#[test]
fn the_shipped_configurations_have_no_fault() {
    for name in ["minimal.toml", "replyguard.toml"] {
        let file = format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_replyguard"));
        let output = command.args(["check-config", "--config", &file]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(": no fault\n"), "{name}: {output:?}");
        assert!(!said.contains("note:") && output.stderr.is_empty(), "{name}: {output:?}");
    }
}

/// Goal: the demo tells what happens. Method: it counts itself, and says whether all went as told.
#[test]
fn the_demo_goes_as_told() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_replyguard"));
    let output = command.arg("demo").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("Everything went as told."), "{told}");
}

/// This host's names for those of the examples.
const NAMES: [(&str, &str); 2] =
    [("mx.example.org", "mx.ours.example"), ("\"example.org\"", "\"ours.example\"")];

/// Goal: an administrator who follows the shipped files step by step has a guard that works.
/// Method: `minimal.toml` with this host's names, first on trial and then in earnest; Postfix with
/// the shipped variant for a server that delivers to the world itself.
#[test]
fn the_shipped_files_make_a_guard_that_works() {
    if missing() {
        return;
    }
    let (front, back) = (Port::claim(), Port::claim());
    let settings = postfix::Settings::default().variant_c(front.address(), &back, Which::Automatic);
    let next_hop = back.address().to_string();
    let replace = [&NAMES[..], &[("127.0.0.1:10026", &next_hop)]].concat();
    works(settings, front, &shipped("minimal.toml", &replace));
}

/// Goal: so has one who reads no more than the README. Method: the same with what stands there.
#[test]
fn the_readme_makes_a_guard_that_works() {
    if missing() {
        return;
    }
    let (front, back) = (Port::claim(), Port::claim());
    let guard = format!("[127.0.0.1]:{}", front.number());
    let next_hop = back.address().to_string();
    let replace = [("[127.0.0.1]:10025", guard.as_str()), ("127.0.0.1:10026", &next_hop)];
    let settings = postfix::Settings::default().written(&readme("# /etc/postfix/", &replace));
    let replace = [&NAMES[..], &[("127.0.0.1:10026", &next_hop)]].concat();
    works(settings, front, &readme("[outbound]", &replace).replace("\"observe\"", "\"enforce\""));
}

/// Goal: nor does one who adds the README's tap have more to do. Method: its lines as they stand; a
/// user who is away gets a genuine letter and a forged one.
#[test]
fn the_readmes_tap_judges_out_of_office_replies() {
    if missing() {
        return;
    }
    let [front, back, tap, submission] = [(); 4].map(|()| Port::claim());
    let at = |port: &Port| format!("127.0.0.1:{}", port.number());
    let (sink, next_hop, tap_at) = (Sink::smtp(), at(&back), at(&tap));
    let replace = [&NAMES[..], &[("127.0.0.1:10026", &next_hop)]].concat();
    let file = readme("[outbound]", &replace).replace("\"observe\"", "\"enforce\"")
        + &readme("[tap.milter]", &[("127.0.0.1:10027", &tap_at)]);
    let away = "require \"vacation\";\nvacation \"I am away.\";\n".to_owned();
    let dovecot = Dovecot::start(&dovecot::Settings {
        conf: shipped("dovecot/replyguard.conf", &[("127.0.0.1:2587", &at(&submission))]),
        scripts: vec![("alice".to_owned(), away)],
    });
    let guard_at = format!("[127.0.0.1]:{}", front.number());
    let routing = [("[127.0.0.1]:10025", guard_at.as_str()), ("127.0.0.1:10026", &next_hop)];
    let settings = postfix::Settings::default()
        .written(&readme("# /etc/postfix/", &routing))
        .written(&readme("smtpd_milters = inet", &[("127.0.0.1:10027", &tap_at)]))
        .next_hop(sink.address())
        .mailboxes(dovecot.lmtp())
        .master(&format!("{} inet n - n - - smtpd\n", at(&submission)));
    let guard = Guard::start_at(front, Settings::file(&file));
    assert!(guard.cli(&["check-config"]).status.success());
    guard.dns().set_zone(ZONE);
    let postfix = Postfix::start(&settings);
    for (client, from) in [(GENUINE_CLIENT, "joe@far.example"), (FORGER, "eve@far.example")] {
        let text = letter(from, ALICE, from.split('@').next().unwrap());
        let mut client = Client::from_outside(postfix.border(), client, "mail.far.example");
        client.deliver(&Mail::new(from, &[ALICE], text));
    }
    assert_eq!(guard.wait_for_record("joe@far.example")["verdict"], "authenticated");
    assert_eq!(guard.wait_for_record("eve@far.example")["action"], "quarantine");
    postfix.drained();
    let answered: Vec<_> = sink.taken().iter().flat_map(|one| one.recipients.clone()).collect();
    assert_eq!(answered.len(), 1);
    assert_eq!(answered[0].address, "joe@far.example");
}

/// Goal: the README shows no other router for Exim than the one that is shipped and tested.
#[test]
fn the_readme_has_exims_shipped_router() {
    let settings = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let shown = readme("driver = manualroute", &[]);
    assert_eq!(settings(&shown), settings(&shipped("exim/routers", &[])));
}

/// On trial everything is delivered; in earnest the forged sender's bounce is held.
fn works(settings: postfix::Settings, front: Port, enforcing: &str) {
    let (sink, mailboxes) = (Sink::smtp(), mailboxes());
    let settings = settings
        .next_hop(sink.address())
        .mailboxes(mailboxes.address())
        .authentication_results("victim.example", FORGED)
        .authentication_results("friend.example", GENUINE);
    let postfix = Postfix::start(&settings);
    let observing = enforcing.replace("\"enforce\"", "\"observe\"");
    let mut guard = Guard::start_at(front, Settings::file(&observing));
    assert!(guard.cli(&["check-config"]).status.success());

    let send = |from: &str, id: &str| {
        let mut client = Client::from_outside(postfix.border(), "192.0.2.55", "mail.far.example");
        client.deliver(&Mail::new(from, &[GONE], letter(from, GONE, id)));
    };
    send(VICTIM, "on-trial");
    assert_eq!(sink.wait_for_text("on-trial").addresses(), [VICTIM]);
    assert_eq!(guard.wait_for_record(VICTIM)["would"], "quarantine");

    guard.configure(Settings::file(enforcing));
    guard.reload();
    send(VICTIM, "in-earnest");
    send(FRIEND, "typo");
    assert_eq!(sink.wait_for_text("typo").addresses(), [FRIEND]);
    until("the forged sender's bounce to be held", || (guard.held_for() == [VICTIM]).then_some(()));
    postfix.drained();
    assert_eq!(sink.taken().len(), 2);
}
