//! The configuration shown: the file that is shipped, the page of the documentation, and what is
//! in force. All three are made from `keys::KEYS`.

use crate::config::Config;
use crate::config::keys::{KEYS, Key};

/// The shipped sample: every key at its default, commented out, with its reason.
pub fn sample() -> String {
    let mut text = String::from(
        "# replyguard: every key, at its default. Take the `#` away before a key to set it.\n\
         # Durations: \"500ms\" \"30s\" \"5m\" \"4h\" \"14d\". Sizes: \"64KiB\" \"25MiB\" \"4GiB\".\n\
         # Unknown keys are refused. `replyguard check-config` finds every fault at once.\n\n",
    );
    let mut table = "";
    for key in KEYS.iter().filter(|key| key.key != "policy.rule") {
        let (section, name) = split(key);
        if section != table {
            text.push_str(&format!("\n[{section}]\n"));
            table = section;
        }
        for line in wrapped(key.about, 96) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("#{name} = {}\n\n", default(key)));
    }
    text.push_str(RULES);
    text
}

/// The page `docs/reference/config.md`, its table of keys.
pub fn reference() -> String {
    let mut text = String::from("| key | default | what it is |\n|---|---|---|\n");
    for key in KEYS {
        let default = key.default.replace('|', "\\|");
        text.push_str(&format!("| `{}` | `{default}` | {} |\n", key.key, key.about));
    }
    text
}

/// What is in force: every key with the value written, or its default.
pub fn in_force(config: &Config) -> String {
    let mut text = String::new();
    let mut table = "";
    for key in KEYS.iter().filter(|key| key.key != "policy.rule") {
        let (section, name) = split(key);
        if section != table {
            text.push_str(&format!("\n[{section}]\n"));
            table = section;
        }
        let written = config.written.iter().find(|(dotted, _)| dotted == key.key);
        let value = match (written, computed(config, key.key)) {
            (Some((_, written)), _) => written.clone(),
            (None, Some(computed)) => format!("{computed:?}"),
            (None, None) => key.default.to_owned(),
        };
        text.push_str(&format!("{name} = {value}\n"));
    }
    for rule in &config.policy.rules {
        text.push_str(&format!("\n# [[policy.rule]] {} ({:?})\n", rule.name, rule.action));
    }
    text.trim_start().to_owned()
}

const RULES: &str = "\n# Rules before the profile; the first that matches decides. All conditions that are set must\n\
# hold. `mode` makes one rule observe or enforce by itself.\n\
#\n\
#[[policy.rule]]\n\
#name = \"no-receipts\"\n\
#class = [\"mdn\", \"dsn.delivered\"]      # dsn, dsn.failed, auto-reply, challenge, dmarc-report…\n\
#verdict = [\"unauthenticated\"]         # authenticated, failed, unresolved, unknown\n\
#rcpt = [\".example.org\"]               # address, domain, or .domain\n\
#responder = [\"desk@example.net\"]      # who answers\n\
#client = [\"192.0.2.0/24\"]             # which MTA hands it in\n\
#origin = \"ours\"                       # or \"relayed\"\n\
#action = \"suppress\"                   # deliver limit suppress quarantine reject discard defer\n\
#mode = \"observe\"                      # or \"enforce\"\n";

/// Defaults that depend on the system or on other keys.
fn computed(config: &Config, dotted: &str) -> Option<String> {
    Some(match dotted {
        "hostname" => config.hostname.clone(),
        "state_dir" => config.state_dir.display().to_string(),
        "loops.site" => config.loop_site.clone(),
        "store.path" => config.store.path.display().to_string(),
        "audit.path" => config.audit.path.display().to_string(),
        "quarantine.path" => config.quarantine.path.display().to_string(),
        "admin.socket" => config.admin.socket.display().to_string(),
        _ => return None,
    })
}

fn split(key: &Key) -> (&'static str, &'static str) {
    key.key.rsplit_once('.').unwrap_or(("", key.key))
}

fn default(key: &Key) -> String {
    match key.default.strip_prefix('…') {
        Some(words) => format!("\"…\"    #{words}"),
        None => key.default.to_owned(),
    }
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
