//! `explain`: the whole decision for one message and why, as the daemon would take it.
//!
//! Runs without the daemon and changes nothing. What the daemon alone knows (how many limited
//! responses went out today) counts as nothing here, and the text says so.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::{Args, ValueEnum};

use crate::auth::Authenticator;
use crate::cmd::ConfigFile;
use crate::cmd::exit::Exit;
use crate::cmd::explained;
use crate::cmd::paint::Paint;
use crate::config::Config;
use crate::guard::clock::Clock;
use crate::guard::inquiry::{InForce, Inquiry};
use crate::guard::loops::LoopMemory;
use crate::judge::decision::Action;
use crate::judge::fingerprint::FingerprintKey;
use crate::judge::trace::TraceKey;
use crate::mail::address::{Address, ForwardPath, ReversePath};
use crate::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use crate::mail::header::{Completeness, reverse_path};
use crate::mail::message::Message;
use crate::mail::shown::Shown;
use crate::serve::state::{STORE_KEY, STORE_KEY_OLD, TRACE_KEY, TRACE_KEY_BEFORE, key_beside};
use crate::store::answers::Answers;
use crate::store::embedded::Keys;
use crate::store::keyed::StoreKey;
use crate::store::null::Null;
use crate::store::{Store, beside_daemon};

/// The arguments.
#[derive(Args, Debug)]
pub struct Question {
    #[command(flatten)]
    config: ConfigFile,
    /// The reverse-path; `<>` or an empty word is the null one. Without it: Return-Path of the
    /// message, or the null one.
    #[arg(long, value_name = "ADDR")]
    mail_from: Option<String>,
    /// A recipient; may stand several times. Without it: the addresses of the To field.
    #[arg(long, value_name = "ADDR")]
    rcpt: Vec<String>,
    /// The address of the client that would hand it in.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// What that client calls itself.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    helo: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The message; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Explains one message.
pub fn explain(question: &Question) -> Exit {
    let config = match question.config.load() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let asked = read(&question.file, config.outbound.inspect_max)
        .and_then(|message| Ok((envelope(question, &message)?, message)));
    let (envelope, message) = match asked {
        Ok(asked) => asked,
        Err(fault) => {
            eprintln!("{fault}");
            return Exit::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let inquiry = inquiry(&config);
    let (runtime, inquiry) = match (runtime, inquiry) {
        (Ok(runtime), Ok(inquiry)) => (runtime, inquiry),
        (Err(fault), _) => return later(&fault.to_string()),
        (_, Err(fault)) => return later(&fault),
    };
    let explained = runtime.block_on(inquiry.explain(&envelope, &message));
    match question.format {
        Format::Text => {
            let place = explained::Place { config: &config, envelope: &envelope };
            print!("{}", explained::text(&explained, &place, Paint::stdout()));
        }
        Format::Json => println!("{}", explained::json(&explained, &envelope)),
    }
    match explained.decisions.iter().all(|decision| decision.action == Action::Deliver) {
        true => Exit::Done,
        false => Exit::No,
    }
}

fn later(fault: &str) -> Exit {
    eprintln!("{fault}");
    Exit::Later
}

fn inquiry(config: &Config) -> Result<Inquiry, String> {
    let facts = Authenticator::new(&config.auth).map_err(|fault| fault.to_string())?;
    // Why other keys will do: they only tell laps and campaigns of this site again.
    let key = |name: &str| key_beside(&config.state_dir, name).unwrap_or([0; 32]);
    Ok(Inquiry {
        facts: Arc::new(facts),
        store: store(config),
        is_tapped: config.tap.is_on(),
        answers: Answers::new([0; 32]),
        loops: LoopMemory::blank(FingerprintKey::new(key("fingerprint.key"))),
        clock: Clock::System,
        loop_site: config.loop_site.clone(),
        trace_key: trace_key(config),
        fingerprint_key: FingerprintKey::new(key("fingerprint.key")),
        policy: ArcSwap::from_pointee(InForce::new(config.policy.clone())),
    })
}

fn trace_key(config: &Config) -> TraceKey {
    let key = |name: &str| key_beside(&config.state_dir, name);
    let current = TraceKey::new(key(TRACE_KEY).unwrap_or([0; 32]));
    match key(TRACE_KEY_BEFORE) {
        Some(before) => current.and_before(before),
        None => current,
    }
}

/// What the daemon remembers; nothing where that cannot be read.
fn store(config: &Config) -> Arc<dyn Store> {
    let key = |name: &str| key_beside(&config.state_dir, name).map(StoreKey::new).map(Arc::new);
    let opened = key(STORE_KEY).map(|current| {
        let keys = Keys { current, former: key(STORE_KEY_OLD) };
        beside_daemon(&config.store, keys)
    });
    match opened {
        Some(Ok(store)) => store,
        Some(Err(fault)) => {
            eprintln!("what came in is not looked up: {fault}");
            Arc::new(Null)
        }
        None => Arc::new(Null),
    }
}

/// As much of the message as the daemon would read, line ends as they would be on the wire.
fn read(path: &Path, inspect_max: usize) -> Result<Message, String> {
    let bytes_max = u64::try_from(inspect_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(bytes_max).read_to_end(&mut bytes),
        false => {
            std::fs::File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
        }
    };
    let length = read.map_err(|fault| format!("{}: {fault}", path.display()))?;
    let completeness = match length < inspect_max {
        true => Completeness::Whole,
        false => Completeness::Truncated,
    };
    Ok(Message::new(bytes, completeness))
}

fn envelope(question: &Question, message: &Message) -> Result<Envelope, String> {
    let view = message.view();
    let path = match &question.mail_from {
        Some(text) => reverse_path(text)
            .ok_or_else(|| format!("--mail-from {}: no address", Shown::new(text)))?,
        None => {
            let written = view.fields.first("return-path");
            written.and_then(|field| reverse_path(&field.text())).unwrap_or(ReversePath::Null)
        }
    };
    let mut recipients = Vec::new();
    for text in &question.rcpt {
        recipients.push(forward_path(text)?);
    }
    if recipients.is_empty() {
        let to = view.fields.all("to").flat_map(|field| field.addresses());
        recipients.extend(to.map(ForwardPath::Address));
    }
    if recipients.is_empty() {
        return Err("the message names no recipient: say --rcpt ADDR".to_owned());
    }
    let recipients = recipients.into_iter().map(|path| Recipient {
        path_text: format!("<{path}>"),
        path,
        parameters: Parameters::default(),
    });
    Ok(Envelope {
        client: Client {
            ip: Some(question.client_ip),
            helo: question.helo.clone(),
            ..Client::default()
        },
        mail: MailFrom { path_text: format!("<{path}>"), path, parameters: Parameters::default() },
        recipients: recipients.collect(),
    })
}

fn forward_path(text: &str) -> Result<ForwardPath, String> {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    if inner.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster(inner.to_owned()));
    }
    let address = Address::parse(inner);
    address
        .map(ForwardPath::Address)
        .ok_or_else(|| format!("--rcpt {}: no address", Shown::new(text)))
}
