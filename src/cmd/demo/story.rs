//! The demo's story: six scenes, with pictures of the last two.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::audit::quarantine::QuarantineHealth;
use crate::cmd::demo::border::{self, Inbound};
use crate::cmd::demo::client::Mta;
use crate::cmd::demo::letters::{Original, bounce, personal, vacation};
use crate::cmd::demo::ring::{self, Forwarder};
use crate::cmd::demo::sink::{self, Arrived};
use crate::cmd::demo::{picture, zone};
use crate::cmd::paint::{Paint, Tone};
use crate::config::{Config, World};
use crate::guard::Guard;
use crate::guard::clock::Clock;
use crate::mail::reply::Reply;
use crate::serve::Server;
use crate::wire::endpoint::Endpoint;

/// Messages of the scenes before the joe job, and how many of them go out.
const LETTERS: usize = 5;
const LETTERS_OUT: usize = 3;
/// Bounces of the joe job, and sessions that hand them in at once.
const STORM: usize = 1000;
const SESSIONS: usize = 20;
const VICTIM: &str = "victim@bank.example";

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Tells it; whether everything went as told.
pub async fn tell(folder: &Path) -> Result<bool, Fault> {
    let arrived = Arrived::default();
    let next_hop = sink::serve(arrived.clone()).await?;
    let dns = zone::serve().await?;
    let config = configuration(folder, &next_hop.to_string(), &dns.to_string())?;
    let server = Server::start(&config).await?;
    let stage = Stage {
        paint: Paint::stdout(),
        arrived,
        guard: Arc::clone(server.guard()),
        address: first(&server.endpoints()),
        tap: first(&server.tap_endpoints()),
    };
    let stopper = server.stopper();
    let running = tokio::spawn(server.run());
    println!("{}", stage.paint.paint(Tone::Strong, "replyguard demo"));
    println!(
        "The real daemon on loopback: an MTA of uni.example hands in its mail at {},",
        stage.address
    );
    println!("a next hop takes what goes out, and a DNS zone knows bank.example (SPF, p=reject).");
    let letters = stage.letters(folder).await? & stage.vacations(folder).await?;
    let right = letters & stage.joe_job().await?;
    let rounds = stage.rings(folder).await?;
    stage.what_is_left(right & rounds.is_some(), STORM + LETTERS + rounds.unwrap_or(0));
    stopper.drain();
    running.await?;
    Ok(right)
}

/// Where the story is played.
struct Stage {
    paint: Paint,
    arrived: Arrived,
    guard: Arc<Guard>,
    address: String,
    tap: String,
}

fn first(endpoints: &[Endpoint]) -> String {
    endpoints.first().map(ToString::to_string).unwrap_or_default()
}

impl Stage {
    fn heading(&self, text: &str) {
        println!("\n{}", self.paint.paint(Tone::Strong, text));
    }

    /// Three single messages.
    async fn letters(&self, folder: &Path) -> Result<bool, Fault> {
        let mut mta = Mta::connect(&self.address).await?;
        self.heading("1. Ann of uni.example writes to joe@bank.example.");
        let reply = mta.send("ann@uni.example", "joe@bank.example", &personal()).await?;
        let mut right = self.outcome(1, &reply);

        self.heading("2. Joe wrote to a mailbox that is gone. Our bounce goes back to him.");
        println!("   What we bounce bears our border's word: spf=pass for joe@bank.example.");
        let genuine = Original {
            from: "joe@bank.example",
            client: "192.0.2.10",
            results: "spf=pass smtp.mailfrom=joe@bank.example; dkim=none; dmarc=pass \
                      header.from=bank.example",
            to: "gone@uni.example",
            subject: "Minutes",
            number: 1,
        };
        let reply = mta.send("", "joe@bank.example", &bounce(&genuine)).await?;
        right &= self.outcome(2, &reply);

        self.heading("3. A spammer wrote to a mailbox that is gone, as victim@bank.example.");
        println!("   What we bounce bears our border's word: spf=fail, dmarc=fail.");
        let reply = mta.send("", VICTIM, &bounce(&spam(0))).await?;
        right &= self.outcome(2, &reply);
        explain(folder, &reply)?;
        Ok(right)
    }

    /// Two out-of-office replies, to a genuine writer and to a forged one.
    async fn vacations(&self, folder: &Path) -> Result<bool, Fault> {
        self.heading("4. Ann is away. Joe writes to her, and so does the spammer, as his victim.");
        println!("   Her replies name an id and no more; the tap saw both letters come in.");
        let (mut mta, mut right) = (Mta::connect(&self.address).await?, true);
        for (from, client, id, out) in [
            ("joe@bank.example", "192.0.2.10", "joe-1", LETTERS_OUT),
            (VICTIM, "198.51.100.66", "spam-1", LETTERS_OUT),
        ] {
            let inbound = Inbound { client, from, to: "ann@uni.example", id };
            border::tell(&self.tap, &inbound).await?;
            println!("   in from {client:<14} {from}");
            let reply = mta.send("", from, &vacation(from, id, self.guard.now())).await?;
            right &= self.outcome(out, &reply);
            if from == VICTIM {
                explain(folder, &reply)?;
            }
        }
        Ok(right)
    }

    /// A thousand more of the third.
    async fn joe_job(&self) -> Result<bool, Fault> {
        self.heading(&format!(
            "5. The night of the joe job: {STORM} more of them, {SESSIONS} sessions at once."
        ));
        let storm = storm(&self.address, self.paint).await?;
        println!();
        draw(self.paint, &storm, &self.arrived, &self.guard.quarantine().health());
        Ok(storm.held == STORM && self.arrived.recipients().len() == LETTERS_OUT)
    }

    /// Two mailboxes that forward to one another, in three ways: how many copies were handed in, or
    /// nothing when a ring was not cut where it should be.
    async fn rings(&self, folder: &Path) -> Result<Option<usize>, Fault> {
        self.heading("6. Two mailboxes forward to one another: what does the guard see of it?");
        println!("   Each lap, the other side hands back what the guard let out, its line on top.");
        let mut mta = Mta::connect(&self.address).await?;
        let (mut right, mut handed) = (true, 0);
        for (number, forwarder) in Forwarder::ALL.into_iter().enumerate() {
            let ring = ring::run(&mut mta, &self.arrived, forwarder, number).await?;
            println!("   {:<28} {}", forwarder.what(), ring::drawn(&ring, self.paint));
            right &= ring.held.is_some() && ring.passed < forwarder.cut_at();
            handed += ring.passed + 1;
            if let (Some(reply), Forwarder::Rewrites) = (&ring.held, forwarder) {
                explain(folder, reply)?;
            }
        }
        println!(
            "   Left alone, such a ring runs to 30 or 50 hops; then an innocent sender gets its bounce."
        );
        Ok(right.then_some(handed))
    }

    /// Says what the guard answered; whether the next hop has seen what it should.
    fn outcome(&self, expected: usize, reply: &Reply) -> bool {
        let (tone, word) = match reply.text().contains("suppressed") {
            true => (Tone::Held, "held    "),
            false => (Tone::Good, "goes out"),
        };
        println!("   {}  {} {}", self.paint.paint(tone, word), reply.code(), reply.text());
        self.arrived.recipients().len() == expected && reply.is_positive()
    }

    fn what_is_left(&self, right: bool, handed_in: usize) {
        let held = self.guard.quarantine().health();
        self.heading("What is left");
        println!("   went out:  {}", grouped(&self.arrived.recipients()));
        println!(
            "   held:      {} message file(s), {} further copies of the campaign, {} KiB on disk",
            held.messages,
            held.copies,
            held.bytes.div_ceil(1024)
        );
        println!("   Each of the {handed_in} messages has a line in the audit log that says why.");
        let (tone, verdict) = match right {
            true => (Tone::Good, "Everything went as told."),
            false => (Tone::Held, "NOT everything went as told."),
        };
        println!("\n{}", self.paint.paint(tone, verdict));
        println!("Next: `replyguard check-config`, and the README's ten lines for your MTA.");
    }
}

/// Each recipient once, with how many copies went to it.
fn grouped(recipients: &[String]) -> String {
    let mut counted = std::collections::BTreeMap::<&str, usize>::new();
    for recipient in recipients {
        *counted.entry(recipient).or_default() += 1;
    }
    let words = counted.iter().map(|(recipient, count)| format!("{count} to {recipient}"));
    words.collect::<Vec<_>>().join(", ")
}

fn configuration(folder: &Path, next_hop: &str, dns: &str) -> Result<Config, Fault> {
    let text = format!(
        "mode = \"enforce\"\nhostname = \"guard.uni.example\"\n[outbound]\nlisten = \
         [\"127.0.0.1:0\"]\nnext_hop = [\"{next_hop}\"]\n[local]\ndomains = \
         [\"uni.example\"]\nhosts = [\"mx.uni.example\"]\nauthserv_ids = [\"mx.uni.example\"]\n\
         authserv_stripped = true\n[tap.milter]\nlisten = [\"127.0.0.1:0\"]\n[dns]\nservers = [\"{dns}\"]\n"
    );
    let world = World {
        hostname: "guard.uni.example".to_owned(),
        state_dir: folder.to_owned(),
        now: Clock::System.now(),
    };
    Config::read("demo", &text, folder, &world).map_err(|faults| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").into()
    })
}

fn spam(number: usize) -> Original<'static> {
    Original {
        from: VICTIM,
        client: "198.51.100.66",
        results: "spf=fail smtp.mailfrom=victim@bank.example; dkim=none; dmarc=fail header.from=bank.example",
        to: "nobody@uni.example",
        subject: "You have won",
        number: number + 2,
    }
}

/// The audit log's own words for the event in this reply.
fn explain(folder: &Path, reply: &Reply) -> Result<(), Fault> {
    let text = reply.text();
    let event = text.split(' ').nth(2).unwrap_or_default();
    let log = std::fs::read_to_string(folder.join("audit.jsonl"))?;
    let line = log.lines().find(|line| line.contains(event)).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_str(line)?;
    let why = record.get("text").and_then(|text| text.as_str()).unwrap_or_default();
    println!("   why:      {why}");
    Ok(())
}

/// What the storm came to.
struct Storm {
    held: usize,
    took: Duration,
    /// When each was held, since the beginning.
    moments: Vec<Duration>,
}

async fn storm(address: &str, paint: Paint) -> Result<Storm, Fault> {
    let began = Instant::now();
    let moments = Arc::new(Mutex::new(Vec::with_capacity(STORM)));
    let progress = indicatif::ProgressBar::new(STORM as u64);
    if !paint.is_terminal() {
        progress.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let mut sessions = JoinSet::new();
    for session in 0..SESSIONS {
        let (address, moments) = (address.to_owned(), Arc::clone(&moments));
        let progress = progress.clone();
        sessions.spawn(async move {
            let mut mta = Mta::connect(&address).await?;
            for number in (session..STORM).step_by(SESSIONS) {
                let reply = mta.send("", VICTIM, &bounce(&spam(number + 1))).await?;
                if reply.text().contains("suppressed") {
                    moments.lock().await.push(began.elapsed());
                }
                progress.inc(1);
            }
            Ok::<(), std::io::Error>(())
        });
    }
    while let Some(session) = sessions.join_next().await {
        session??;
    }
    progress.finish_and_clear();
    let took = began.elapsed();
    let mut moments = std::mem::take(&mut *moments.lock().await);
    moments.sort_unstable();
    Ok(Storm { held: moments.len(), took, moments })
}

fn draw(paint: Paint, storm: &Storm, arrived: &Arrived, held: &QuarantineHealth) {
    let width = 48;
    let mut counts = vec![0_usize; width];
    let whole = storm.took.as_micros().max(1);
    for moment in &storm.moments {
        let place = moment.as_micros() * width as u128 / whole;
        let place = usize::try_from(place).unwrap_or(0).min(width - 1);
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
    }
    println!(
        "   held while it blows: {} bounces in {:.2} s, {:.0} a second, each on disk before its 250",
        storm.held,
        storm.took.as_secs_f64(),
        storm.held as f64 / storm.took.as_secs_f64()
    );
    for row in picture::columns(&counts, 4) {
        println!("   {}", paint.paint(Tone::Held, &row));
    }
    println!("   0 s{:>44.2} s\n", storm.took.as_secs_f64());
    let out = arrived.recipients().len();
    let total = STORM + LETTERS;
    let bar = |part| picture::bar(part, total, width);
    println!("   handed in   {} {total}", bar(total));
    println!("   went out    {} {out}", paint.paint(Tone::Good, &bar(out)));
    println!("   held        {} {}", paint.paint(Tone::Held, &bar(total - out)), total - out);
    println!("   stored as   {} {} message(s)", bar(held.messages), held.messages);
}
