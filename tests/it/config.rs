//! The configuration as an administrator meets it: bad files and the exact complaint, the shipped
//! sample, the reference page.
//!
//! `UPDATE=1 cargo test --test it config` rewrites what is made from the table of keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use replyguard::config::file::Source;
use replyguard::config::keys::KEYS;
use replyguard::config::{Config, World, sections, show};
use replyguard::mail::time::Timestamp;
use toml::de::DeTable;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn world() -> World {
    World {
        hostname: "guard.example".to_owned(),
        state_dir: PathBuf::from("/var/lib/replyguard"),
        now: Timestamp::parse_rfc3339("2026-11-21T12:00:00Z").unwrap(),
    }
}

fn read(text: &str) -> Config {
    Config::read("test", text, &root().join("tests/config"), &world())
        .unwrap_or_else(|faults| panic!("{text}\n{faults:#?}"))
}

/// Everything in a configuration, as text to compare.
fn all_of(config: &Config) -> String {
    let Config { notes: _, written: _, policy, .. } = config;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
        config.hostname,
        config.state_dir,
        config.outbound,
        config.relay,
        config.store,
        config.auth,
        config.loop_site,
        config.audit,
        config.quarantine,
        policy.in_order(),
    )
}

/// Goal: a token stands beside the configuration that names it, as every other file may.
/// Method: the folder is not the one that the test runs in.
#[test]
fn the_token_is_looked_for_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "sixteen characters\n").unwrap();
    let text = "[tap.http]\nlisten = [\"127.0.0.1:1\"]\ntoken_file = \"token\"\n";
    let config = Config::read("test", text, folder.path(), &world()).unwrap();
    assert_eq!(config.tap.http_token.as_deref(), Some("sixteen characters"));
}

/// Goal: each broken file meets exactly the complaints written beside it.
/// Method: every `tests/config/bad-*.toml` has a `bad-*.faults` with what is printed.
#[test]
fn every_bad_file_meets_its_complaints() {
    let folder = root().join("tests/config");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 12, "the folder of bad files is gone");
    let mut differing = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let found = match Config::read(name, &text, &folder, &world()) {
            Ok(_) => "no fault\n".to_owned(),
            Err(faults) => {
                let folder = format!("{}/", folder.display());
                faults.iter().map(|fault| format!("{fault}\n").replace(&folder, "")).collect()
            }
        };
        compare(&file.with_extension("faults"), &found, &mut differing);
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn compare(path: &Path, found: &str, differing: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != found {
        differing.push(format!("{}: expected\n{expected}\nfound\n{found}", path.display()));
    }
}

/// Goal: the table of keys is the code's. Method: the keys asked for while reading nothing.
#[test]
fn the_table_of_keys_is_what_the_code_reads() {
    let mut source = Source::new("test", "");
    let table = DeTable::parse("").unwrap();
    let mut section = replyguard::config::file::Section::root(&table);
    sections::config(&mut section, &mut source, root(), &world());
    let table: BTreeSet<String> = KEYS.iter().map(|key| key.key.to_owned()).collect();
    assert_eq!(source.asked, table);
}

/// Goal: the defaults shown are the defaults in force.
#[test]
fn the_defaults_shown_are_the_defaults_in_force() {
    let mut text = String::new();
    for key in KEYS.iter().filter(|key| !key.default.starts_with('…')) {
        text.push_str(&format!("{} = {}\n", key.key, key.default));
    }
    assert_eq!(all_of(&read(&text)), all_of(&read("")));
}

#[test]
fn the_shipped_sample_shows_every_key_at_its_default() {
    let mut differing = Vec::new();
    compare(&root().join("config/replyguard.toml"), &show::sample(), &mut differing);
    assert!(differing.is_empty(), "run with UPDATE=1\n{}", differing.join("\n"));
    let sample = fs::read_to_string(root().join("config/replyguard.toml")).unwrap();
    let mut uncommented = String::new();
    let mut rules = false;
    for line in sample.lines() {
        rules |= line.starts_with("#[[");
        match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => {
                let computed = rest.contains("\"…\"");
                if !computed {
                    uncommented.push_str(rest);
                }
            }
            Some(_) => {}
            None => uncommented.push_str(line),
        }
        uncommented.push('\n');
    }
    assert!(rules);
    let with_rule = read(&uncommented);
    assert_eq!(with_rule.policy.rules.len(), 1);
    let without_rule = uncommented.split("[[policy.rule]]").next().unwrap();
    assert_eq!(all_of(&read(without_rule)), all_of(&read("")));
}

#[test]
fn the_least_that_runs_runs() {
    let text = fs::read_to_string(root().join("config/minimal.toml")).unwrap();
    let config = read(&text);
    assert!(config.enforces());
    assert!(config.notes.is_empty());
}

#[test]
fn the_reference_page_has_the_table_of_keys() {
    let path = root().join("docs/reference/config.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- keys -->\n", "<!-- end of keys -->");
    let (head, rest) = page.split_once(begin).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let made = format!("{head}{begin}{}{end}{tail}", show::reference());
    let mut differing = Vec::new();
    compare(&path, &made, &mut differing);
    assert!(differing.is_empty(), "run with UPDATE=1\n{}", differing.join("\n"));
}

#[test]
fn what_is_in_force_is_printed_and_read_again() {
    let text = "mode = \"enforce\"\n[local]\ndomains = [\"uni.example\"]\n[outbound]\n\
                inspect_max = \"64KiB\"\nnext_hop = [\"mx.example:25\"]\n";
    let config = read(text);
    let printed = show::in_force(&config);
    assert_eq!(all_of(&read(&printed)), all_of(&config));
}

/// A client's share, where nothing is written: half of all, but all for this host, and for a client
/// that is alone. What is written holds for everybody.
#[test]
fn the_usual_share_of_a_client_shuts_out_neither_the_others_nor_the_only_one() {
    for (clients, written, of_one, is_this_host_free) in [
        (r#"["127.0.0.0/8", "::1"]"#, "", 100, true),
        (r#"["127.0.0.1", "192.0.2.1"]"#, "", 100, true),
        (r#"["2001:db8:0:1::/64"]"#, "", 100, true),
        (r#"["192.0.2.1", "192.0.2.2"]"#, "", 50, true),
        (r#"["192.0.2.0/31"]"#, "", 50, true),
        (r#"["2001:db8::/63"]"#, "client_sessions_max = 0", 50, true),
        (r#"["127.0.0.0/8", "::1"]"#, "client_sessions_max = 7", 7, false),
        (r#"["192.0.2.1"]"#, "client_sessions_max = 1000", 100, false),
    ] {
        let text =
            format!("[outbound]\nsessions_max = 100\nallow_clients = {clients}\n{written}\n");
        let outbound = read(&text).outbound;
        let here = outbound.client_sessions_exempt.iter().map(ToString::to_string);
        assert_eq!(outbound.client_sessions_max, of_one, "{text}");
        assert_eq!(here.collect::<Vec<_>>() == ["127.0.0.0/8", "::1/128"], is_this_host_free);
    }
}

#[test]
fn lists_and_domains_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("domains"), "uni.example OK\n").unwrap();
    fs::write(folder.path().join("allow.list"), ".bank.example known\n").unwrap();
    let text = "[local]\ndomains_files = [\"domains\"]\n[lists]\nallow_file = \"allow.list\"\n\
                allow = [\"shop.example\"]\ndeny = [{ match = \"evil.example\", reason = \"no\" }]\n";
    let config = Config::read("test", text, folder.path(), &world()).unwrap();
    assert_eq!(config.policy.site.domains.len(), 1);
    assert_eq!(config.policy.allow.iter().count(), 2);
    assert_eq!(config.policy.deny.iter().next().unwrap().reason, "no");
}

#[test]
fn a_key_that_works_is_not_noted_as_one_of_later() {
    let config = read("[store]\nbackend = \"memory\"\n");
    assert!(config.notes.is_empty(), "{:?}", config.notes);
}

/// Goal: what lets answers to forged senders out is loud at every load.
#[test]
fn each_entry_for_forged_senders_is_warned_of() {
    let entry =
        |n| format!("{{ match = \"d{n}.example\", forged = true, expires = \"2026-12-01\" }}");
    let config = |count| {
        let entries: Vec<String> = (10..10 + count).map(entry).collect();
        read(&format!("[lists]\nallow = [\"plain.example\", {}]\n", entries.join(", "))).warnings()
    };
    let first =
        "allow: d10.example lets answers to FORGED senders out until 2026-12-01T23:59:59.999Z";
    assert_eq!(config(1), [first]);
    let many = config(25);
    assert_eq!((many.len(), many[20].as_str()), (21, "allow: 5 more entries for FORGED senders"));
    assert!(config(0).is_empty());
}

/// Goal: who enforces hears what the guard is blind for.
#[test]
fn enforcing_without_names_of_ours_is_noted() {
    let notes = |text: &str| read(&format!("{text}\n[local]\ndomains = [\"uni.example\"]\n")).notes;
    assert_eq!(notes(""), Vec::<String>::new());
    let blind = notes("mode = \"enforce\"");
    assert_eq!(blind.len(), 2, "{blind:?}");
    assert!(blind[0].contains("authserv_ids") && blind[1].contains("guard.example"), "{blind:?}");
    let told = "mode = \"enforce\"\n[local]\ndomains = [\"uni.example\"]\n\
                hosts = [\"mx.uni.example\"]\nauthserv_ids = [\"mx.uni.example\"]\n";
    assert_eq!(read(told).notes, Vec::<String>::new());
}
