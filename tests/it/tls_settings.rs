//! What an administrator hears of certificates, keys, passwords and trust that cannot be used.
//!
//! Goal: every fault with its line and what to do, and no secret in any of them. Method: broken files
//! of each kind, read by the real reader of settings.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use replyguard::config::{Config, World, show};
use replyguard::mail::time::Timestamp;
use replyguard::wire::secure::{Starttls, TlsUse};

use crate::certificates::{Authority, Dates};

fn read(folder: &Path, text: &str) -> Result<Config, Vec<String>> {
    let world = World {
        hostname: "guard.example".to_owned(),
        state_dir: "/s".into(),
        now: Timestamp::parse_rfc3339("2026-11-21T12:00:00Z").unwrap(),
    };
    let shown = format!("{}/", folder.display());
    Config::read("test", text, folder, &world).map_err(|faults| {
        faults.iter().map(|fault| fault.to_string().replace(&shown, "")).collect()
    })
}

/// The one fault of a configuration.
fn fault(folder: &Path, text: &str) -> String {
    let faults = read(folder, text).expect_err(text);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults[0].clone()
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_wrong_with_a_certificate_or_key_is_said_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let issued = authority.issue(&["guard.example"], Dates::Always);
    issued.files(folder);
    let other = authority.issue(&["guard.example"], Dates::Always);
    write(folder, "other.pem", &other.key, 0o640);
    write(folder, "open.pem", &issued.key, 0o644);
    write(folder, "empty.pem", "", 0o600);
    write(
        folder,
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        0o600,
    );
    let tls = |certificate: &str, key: &str| {
        format!("[tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n")
    };
    for (certificate, key, line, said) in [
        ("certificate.pem", "other.pem", 3, "the key does not belong to the certificate"),
        (
            "certificate.pem",
            "open.pem",
            3,
            "every user of this host can read or write it: chmod o=",
        ),
        ("certificate.pem", "none.pem", 3, "none.pem cannot be read: No such file"),
        ("none.pem", "key.pem", 2, "none.pem cannot be read: No such file"),
        ("empty.pem", "key.pem", 2, "holds no certificate: it must be PEM"),
        (
            "certificate.pem",
            "empty.pem",
            3,
            "holds no private key: it must be PEM without password",
        ),
        ("broken.pem", "key.pem", 2, "is broken"),
        ("certificate.pem", "", 2, "`tls.key_file` is missing"),
        ("", "key.pem", 3, "`tls.certificate_file` is missing"),
    ] {
        let found = fault(folder, &tls(certificate, key));
        assert!(found.starts_with(&format!("test:{line}: ")) && found.contains(said), "{found}");
    }
    let config = read(folder, &tls("certificate.pem", "key.pem")).unwrap();
    assert_eq!(config.outbound.starttls, Starttls::Offered);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn a_certificate_that_ended_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new().issue(&["guard.example"], Dates::Ended).files(folder);
    let tls = "[tls]\ncertificate_file = \"certificate.pem\"\nkey_file = \"key.pem\"\n";
    let warnings = read(folder, tls).unwrap().warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("the certificate ended at 2020-01-01T00:00:00"), "{warnings:?}");
}

#[test]
fn tls_for_clients_needs_a_certificate() {
    let folder = Path::new("/");
    for (text, line) in [
        ("[outbound]\nstarttls = \"require\"\n", 2),
        ("[outbound]\nlisten = [\"tls:127.0.0.1:465\"]\n", 2),
        ("[tap.smtp]\nlisten = [\"tls:[::]:465\"]\nnext_hop = [\"127.0.0.1:25\"]\n", 2),
    ] {
        let found = fault(folder, text);
        assert!(found.starts_with(&format!("test:{line}: there is no certificate")), "{found}");
    }
    let plain = read(folder, "[outbound]\nstarttls = \"offer\"\n").unwrap();
    assert_eq!((plain.outbound.starttls, plain.tls), (Starttls::Off, None));
}

#[test]
fn what_is_asked_of_next_hops_must_make_sense() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "ca.pem", &Authority::new().pem(), 0o644);
    let pin = "00:".repeat(31) + "00";
    let of = |hop: &str, keys: &str| {
        format!("[outbound]\nnext_hop = [{hop}]\n[outbound.next_hop_tls]\n{keys}\n")
    };
    for (hop, keys, said) in [
        ("\"mx.example:25\"", "ca_file = \"ca.pem\"", "looked at only with `mode = \"require\"`"),
        ("\"mx.example:25\"", "mode = \"require\"\nca_file = \"no.pem\"", "no.pem cannot be read"),
        ("\"mx.example:25\"", "fingerprints = [\"abc\"]", "64 hexadecimal digits"),
        (
            "\"unix:/x\"",
            "mode = \"require\"\nca_file = \"ca.pem\"",
            "which name must its certificate",
        ),
        ("{ name = \"x.example\" }", "", "a next hop needs `to = \"host:port\"`"),
        ("{ to = \"mx.example\" }", "", "`outbound.next_hop`: no port"),
        ("{ to = \"mx.example:25\", name = \"a b\" }", "", "a host name or an IP address"),
        ("{ to = \"mx.example:25\", what = 1 }", "", "unknown key `what` in `[outbound.next_hop]`"),
        ("", "", "`outbound.next_hop` is empty"),
    ] {
        let found = fault(folder, &of(hop, keys));
        assert!(found.contains(said), "{said}: {found}");
    }
    for keys in [
        format!("mode = \"require\"\nca_file = \"ca.pem\"\nfingerprints = [{pin:?}]"),
        format!("mode = \"require\"\nverify = \"none\"\nfingerprints = [{pin:?}]"),
    ] {
        let found = fault(folder, &of("\"mx.example:25\"", &keys));
        assert!(found.contains("two things") || found.contains("contradicts"), "{found}");
    }
    let hops = "\"127.0.0.1:25\", \"tls:mx.example:465\", \
                { to = \"mx.example:25\", mode = \"require\", ca_file = \"ca.pem\" }, \
                { to = \"mx.example:26\", mode = \"off\" }";
    let config = read(folder, &of(hops, "verify = \"none\"")).unwrap();
    let uses: Vec<TlsUse> = config.relay.next_hops.iter().map(|hop| hop.tls_use()).collect();
    let (opportunistic, required) = (TlsUse::Opportunistic, TlsUse::Required);
    assert_eq!(uses, [opportunistic, required, required, TlsUse::Off]);
    let verifies =
        |at: usize| config.relay.next_hops[at].tls.as_ref().unwrap().connector.verifies();
    assert_eq!((verifies(1), verifies(2)), (false, true));
    let lmtp = "[tap.smtp]\nlisten = [\"127.0.0.1:25\"]\nnext_hop = [\"lmtp:127.0.0.1:24\"]\n";
    assert!(fault(folder, lmtp).contains("passes SMTP through"));
}

/// Goal: no fault, and nothing that is printed, shows what stands in the file of passwords.
#[test]
fn passwords_are_refused_where_others_could_read_them_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let of = |hop: &str, more: &str| {
        format!("[outbound]\nnext_hop = [{hop:?}]\nauth_file = \"secrets\"\n{more}\n")
    };
    let require = "[outbound.next_hop_tls]\nmode = \"require\"\nverify = \"none\"\n";
    let mx = "mx.example:587";
    for (secrets, mode, hop, more, said) in [
        ("mx.example:587 guard sEcret\n", 0o604, mx, require, "chmod o="),
        (
            "mx.example:587 guard\n",
            0o600,
            mx,
            require,
            "secrets, line 1: write NEXT_HOP USER PASSWORD",
        ),
        ("other.example:25 guard sEcret\n", 0o600, mx, require, "a line of it names no next hop"),
        ("# nobody\n", 0o600, mx, require, "names nobody"),
        ("* guard sEcret\n", 0o600, mx, "", "would get the password without TLS"),
    ] {
        write(folder, "secrets", secrets, mode);
        let faults = read(folder, &of(hop, more)).expect_err(said);
        assert!(faults.iter().any(|fault| fault.contains(said)), "{said}: {faults:#?}");
        assert!(faults.iter().all(|fault| fault.starts_with("test:3: ")), "{faults:#?}");
        assert!(faults.iter().all(|fault| !fault.contains("sEcret")), "{faults:#?}");
    }
    write(folder, "secrets", "* guard sEcret\n", 0o640);
    for (hop, more, warnings) in [
        (mx, require, 1),
        (mx, "auth_in_clear = true\n", 0),
        ("127.0.0.1:587", "", 0),
        ("unix:/run/x", "", 0),
    ] {
        let config = read(folder, &of(hop, more)).unwrap();
        assert!(config.relay.next_hops[0].login.is_some());
        assert_eq!(config.warnings().len(), warnings, "{:?}", config.warnings());
        let all = format!("{config:?} {} {:?}", show::in_force(&config), config.warnings());
        assert!(!all.contains("sEcret"), "{all}");
    }
}
