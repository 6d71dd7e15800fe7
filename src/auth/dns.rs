//! DNS: a question is asked once however many wait for it, its answer is remembered, and nobody
//! waits beyond his deadline.
//!
//! Takes: `Question`. Gives: `Answer`. Errors: `Trouble` (temporary; the zone's or the network's
//! operator acts): no answer, SERVFAIL, REFUSED, an answer that cannot be read.
//! Bounds: `limits::DNS_*`. The resolver's own cache is off: it remembers no failures, and it
//! would stand between us and the second answer that `Turn::Second` asks for.
//! Standards: RFC 1035, RFC 2308 (negative answers).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use lru::LruCache;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::mail::limits::{
    DNS_CACHE_ENTRIES_MAX, DNS_CACHED_BYTES_MAX, DNS_FAILURE_TTL, DNS_NEGATIVE_TTL_MAX,
    DNS_QUESTIONS_MAX, DNS_TTL_MAX, DNS_TTL_MIN,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TXT.
    Txt,
    /// MX.
    Mx,
    /// A.
    A,
    /// AAAA.
    Aaaa,
    /// PTR.
    Ptr,
}

/// Whether a question may be answered from what was answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    /// It may.
    First,
    /// It is asked to confirm another answer: only answers to such questions are remembered for it.
    Second,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    kind: Kind,
    name: String,
    turn: Turn,
}

impl Question {
    /// Asks for records of this kind at a name, with or without a final dot, in any letter case.
    pub fn new(kind: Kind, name: &str) -> Question {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Question { kind, name, turn: Turn::First }
    }

    /// The same, asked anew: what was answered to the question without this does not count.
    pub fn anew(self) -> Question {
        Question { turn: Turn::Second, ..self }
    }
}

impl fmt::Display for Question {
    /// As in `TXT _dmarc.example.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", record_type(self.kind), self.name)
    }
}

/// What DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The records of the kind that was asked for, at least one, aliases followed.
    Records(Arc<[Record]>),
    /// The name exists and has no such record.
    NoData,
    /// The name does not exist, or could not exist (RFC 8020 §2).
    NoSuchName,
}

impl Answer {
    /// The records; none for the negative answers.
    pub fn records(&self) -> &[Record] {
        match self {
            Answer::Records(records) => records,
            Answer::NoData | Answer::NoSuchName => &[],
        }
    }

    /// The texts of TXT records, each with its strings joined.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.records().iter().filter_map(|record| match record {
            Record::Text(text) => Some(text.as_slice()),
            _ => None,
        })
    }
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// TXT: its strings, joined.
    Text(Vec<u8>),
    /// MX.
    Exchange {
        /// The lower is tried first.
        preference: u16,
        /// Lower case, without a final dot; empty for the root, which means null MX.
        host: String,
    },
    /// A or AAAA.
    Address(IpAddr),
    /// PTR: lower case, without a final dot.
    Pointer(String),
}

impl Record {
    fn size_bytes(&self) -> usize {
        let text = match self {
            Record::Text(text) => text.len(),
            Record::Exchange { host: name, .. } | Record::Pointer(name) => name.len(),
            Record::Address(_) => 0,
        };
        text + size_of::<Record>()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{question}: {cause}")]
pub struct Trouble {
    question: String,
    cause: String,
}

type Outcome = Result<Answer, Trouble>;

/// Asks, remembers, and lets many wait for one answer. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    inner: Arc<Inner>,
}

struct Inner {
    resolver: TokioResolver,
    timeout: Duration,
    memory: Mutex<Memory>,
}

struct Memory {
    answers: LruCache<Question, Remembered>,
    asked: HashMap<Question, watch::Receiver<Option<Outcome>>>,
}

struct Remembered {
    outcome: Outcome,
    until: Instant,
}

/// A question under way.
pub struct Pending {
    question: Question,
    state: State,
}

enum State {
    Answered(Outcome),
    Asked(watch::Receiver<Option<Outcome>>),
}

impl Dns {
    /// Asks these servers, or the system's when there are none; `timeout` bounds each question,
    /// repetitions included. The error is what stood in the way of reading the system's.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Dns, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if servers.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, provider)
        };
        *builder.options_mut() = options(timeout);
        let memory =
            Memory { answers: LruCache::new(DNS_CACHE_ENTRIES_MAX), asked: HashMap::new() };
        let inner = Inner { resolver: builder.build()?, timeout, memory: Mutex::new(memory) };
        Ok(Dns { inner: Arc::new(inner) })
    }

    /// How long one question may take.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Asks and waits.
    pub async fn ask(&self, question: Question, deadline: Instant) -> Result<Answer, Trouble> {
        self.begin(question).answer(deadline).await
    }

    /// Asks without waiting. The answer is remembered even if nobody waits for it.
    pub fn begin(&self, question: Question) -> Pending {
        let mut memory = self.inner.memory();
        if let Some(outcome) = memory.recall(&question) {
            return Pending { question, state: State::Answered(outcome) };
        }
        if let Some(asked) = memory.asked.get(&question) {
            let state = State::Asked(asked.clone());
            return Pending { question, state };
        }
        if memory.asked.len() >= DNS_QUESTIONS_MAX {
            let outcome = Err(trouble(&question, "too many questions at once"));
            return Pending { question, state: State::Answered(outcome) };
        }
        let (sender, receiver) = watch::channel(None);
        memory.asked.insert(question.clone(), receiver.clone());
        let asking = Asking { inner: Arc::clone(&self.inner), question: question.clone() };
        tokio::spawn(asking.run(sender));
        Pending { question, state: State::Asked(receiver) }
    }
}

impl Pending {
    /// Waits for the answer, but not beyond `deadline`.
    pub async fn answer(self, deadline: Instant) -> Result<Answer, Trouble> {
        let mut receiver = match self.state {
            State::Answered(outcome) => return outcome,
            State::Asked(receiver) => receiver,
        };
        match timeout_at(deadline, receiver.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Ok(Answer::NoData)),
            Ok(Err(_closed)) => Err(trouble(&self.question, "the question was given up")),
            Err(_elapsed) => Err(trouble(&self.question, "no answer in time")),
        }
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Why: nothing panics while it holds the lock, and a cache is no reason to stop.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the servers; with how long the outcome may be remembered.
    async fn look_up(&self, question: &Question) -> (Outcome, Duration) {
        let Some(name) = dns_name(&question.name) else {
            return (Ok(Answer::NoSuchName), DNS_NEGATIVE_TTL_MAX);
        };
        let kind = record_type(question.kind);
        let outcome = timeout(self.timeout, self.resolver.lookup(name.clone(), kind)).await;
        let failed = |cause: &str| (Err(trouble(question, cause)), DNS_FAILURE_TTL);
        match outcome {
            Err(_elapsed) => failed("no answer in time"),
            Ok(Ok(lookup)) => read(&name, kind, &lookup),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => {
                let ttl = Duration::from_secs(nothing.negative_ttl.unwrap_or(0).into());
                let ttl = ttl.clamp(DNS_TTL_MIN, DNS_NEGATIVE_TTL_MAX);
                match nothing.response_code {
                    ResponseCode::NXDomain => (Ok(Answer::NoSuchName), ttl),
                    ResponseCode::NoError => (Ok(Answer::NoData), ttl),
                    code => failed(&said(code)),
                }
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => failed(&said(code)),
            Ok(Err(NetError::Timeout)) => failed("no answer in time"),
            Ok(Err(other)) => failed(&other.to_string()),
        }
    }
}

impl Memory {
    fn recall(&mut self, question: &Question) -> Option<Outcome> {
        let found = self.answers.get(question)?;
        if found.until > Instant::now() {
            return Some(found.outcome.clone());
        }
        self.answers.pop(question);
        None
    }

    fn remember(&mut self, question: &Question, outcome: &Outcome, ttl: Duration) {
        let records = outcome.as_ref().map_or(&[][..], Answer::records);
        let size_bytes: usize = records.iter().map(Record::size_bytes).sum();
        if size_bytes <= DNS_CACHED_BYTES_MAX {
            let remembered = Remembered { outcome: outcome.clone(), until: Instant::now() + ttl };
            self.answers.put(question.clone(), remembered);
        }
    }
}

/// The task that asks one question. Whatever ends it, the question is no longer under way.
struct Asking {
    inner: Arc<Inner>,
    question: Question,
}

impl Asking {
    async fn run(self, sender: watch::Sender<Option<Outcome>>) {
        let (outcome, ttl) = self.inner.look_up(&self.question).await;
        // Why first: who asks between the two finds the answer, and asks no second time.
        self.inner.memory().remember(&self.question, &outcome, ttl);
        sender.send_replace(Some(outcome));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.inner.memory().asked.remove(&self.question);
    }
}

fn trouble(question: &Question, cause: &str) -> Trouble {
    Trouble { question: question.to_string(), cause: cause.to_owned() }
}

fn said(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "the server says SERVFAIL".to_owned(),
        ResponseCode::Refused => "the server says REFUSED".to_owned(),
        other => format!("the server says {other}"),
    }
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    NameServerConfig::new(server.ip(), true, connections.map(at_port).to_vec())
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Why half: a server that is silent or fails is asked a second time within the whole.
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

/// `None` for what cannot be a name: an empty label, one over 63 bytes, over 255 in all.
fn dns_name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::Txt => RecordType::TXT,
        Kind::Mx => RecordType::MX,
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Ptr => RecordType::PTR,
    }
}

/// The records that belong to the question: at its name, or where its aliases lead.
fn read(name: &Name, kind: RecordType, lookup: &Lookup) -> (Outcome, Duration) {
    let mut names = vec![name];
    let mut records = Vec::new();
    for record in lookup.answers() {
        if !names.contains(&&record.name) {
            continue;
        }
        match &record.data {
            RData::CNAME(alias) => names.push(&alias.0),
            data if data.record_type() == kind => records.extend(record_of(data)),
            _ => {}
        }
    }
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(ttl.into()).clamp(DNS_TTL_MIN, DNS_TTL_MAX);
    match records.is_empty() {
        true => (Ok(Answer::NoData), DNS_TTL_MIN),
        false => (Ok(Answer::Records(records.into())), ttl),
    }
}

fn record_of(data: &RData) -> Option<Record> {
    Some(match data {
        RData::TXT(text) => Record::Text(text.txt_data.concat()),
        RData::MX(mx) => {
            Record::Exchange { preference: mx.preference, host: host_of(&mx.exchange) }
        }
        RData::A(address) => Record::Address(IpAddr::V4(address.0)),
        RData::AAAA(address) => Record::Address(IpAddr::V6(address.0)),
        RData::PTR(name) => Record::Pointer(host_of(&name.0)),
        _ => return None,
    })
}

/// The labels with dots between. A dot inside a label gets a backslash: it must not look like two
/// labels, and the name is then none that exists.
fn host_of(name: &Name) -> String {
    let label = |label: &[u8]| String::from_utf8_lossy(label).replace('.', "\\.");
    let labels: Vec<String> = name.iter().map(label).collect();
    labels.join(".").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, TXT};
    use tokio::time::advance;

    use super::*;

    fn memory() -> Memory {
        Memory { answers: LruCache::new(DNS_CACHE_ENTRIES_MAX), asked: HashMap::new() }
    }

    fn text(size_bytes: usize) -> Outcome {
        Ok(Answer::Records([super::Record::Text(vec![b'x'; size_bytes])].into()))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_failures_are_forgotten_in_time() {
        let mut memory = memory();
        let question = |name| Question::new(Kind::Txt, name);
        let failure = Err(trouble(&question("b.example"), "no answer in time"));
        memory.remember(&question("a.example"), &text(10), Duration::from_secs(60));
        memory.remember(&question("b.example"), &failure, DNS_FAILURE_TTL);
        advance(DNS_FAILURE_TTL - Duration::from_millis(1)).await;
        assert_eq!(memory.recall(&question("B.Example.")), Some(failure));
        advance(Duration::from_millis(1)).await;
        assert_eq!(memory.recall(&question("b.example")), None);
        assert_eq!(memory.recall(&question("a.example")), Some(text(10)));
        assert_eq!(memory.recall(&question("a.example").anew()), None);
        assert_eq!(memory.recall(&Question::new(Kind::Mx, "a.example")), None);
        advance(Duration::from_secs(50)).await;
        assert_eq!(memory.recall(&question("a.example")), None);
        assert!(memory.answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_has_a_bound() {
        let mut memory = memory();
        let entries_max = DNS_CACHE_ENTRIES_MAX.get();
        for number in 0..entries_max + 10 {
            let question = Question::new(Kind::Txt, &format!("a{number}.example"));
            memory.remember(&question, &text(10), DNS_TTL_MAX);
        }
        assert_eq!(memory.answers.len(), entries_max);
        let question = Question::new(Kind::Txt, "big.example");
        memory.remember(&question, &text(DNS_CACHED_BYTES_MAX + 1), DNS_TTL_MAX);
        assert_eq!(memory.recall(&question), None);
    }

    #[test]
    fn only_records_of_the_name_and_its_aliases_are_an_answer() {
        let name = |text: &str| dns_name(text).unwrap();
        let record = |owner: &str, data| Record::from_rdata(name(owner), 60, data);
        let text = |text: &str| RData::TXT(TXT::new(vec![text.to_owned()]));
        let answers = [
            record("a.example", RData::CNAME(CNAME(name("b.example")))),
            record("bank.example", text("planted")),
            record("b.example", text("right")),
            record("b.example", RData::A(A::new(192, 0, 2, 1))),
        ];
        let query = Query::query(name("a.example"), RecordType::TXT);
        let far = std::time::Instant::now() + Duration::from_secs(60);
        let lookup = Lookup::new_with_deadline(query, answers, far);
        let (outcome, ttl) = read(&name("a.example"), RecordType::TXT, &lookup);
        let texts: Vec<Vec<u8>> = outcome.unwrap().texts().map(<[u8]>::to_vec).collect();
        assert_eq!(texts, [b"right".to_vec()]);
        assert_eq!(ttl, Duration::from_secs(60));
        let (outcome, _) = read(&name("c.example"), RecordType::TXT, &lookup);
        assert_eq!(outcome, Ok(Answer::NoData));
        assert_eq!(host_of(&Name::from_labels([b"a.b".as_slice(), b"c"]).unwrap()), "a\\.b.c");
        assert_eq!((dns_name(""), dns_name("a..b")), (None, None));
    }

    #[tokio::test]
    async fn a_question_under_way_is_not_asked_again() {
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let dns = Dns::new(&[nowhere], Duration::from_millis(50)).unwrap();
        let begin = |name| match dns.begin(Question::new(Kind::Txt, name)).state {
            State::Asked(receiver) => receiver,
            State::Answered(outcome) => panic!("{outcome:?}"),
        };
        let first = begin("a.example");
        assert!(first.same_channel(&begin("A.example.")));
        assert!(!first.same_channel(&begin("b.example")));
    }

    #[tokio::test]
    async fn questions_under_way_have_a_bound_and_are_given_back() {
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let dns = Dns::new(&[nowhere], Duration::from_millis(50)).unwrap();
        let begin = |number| dns.begin(Question::new(Kind::Txt, &format!("a{number}.example")));
        let deadline = Instant::now() + Duration::from_secs(20);
        let first = begin(0);
        for number in 1..DNS_QUESTIONS_MAX {
            begin(number);
        }
        let trouble = begin(DNS_QUESTIONS_MAX).answer(deadline).await.unwrap_err();
        assert_eq!(trouble.to_string(), "TXT a1024.example: too many questions at once");
        assert!(first.answer(deadline).await.is_err());
        while !dns.inner.memory().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(begin(DNS_QUESTIONS_MAX).state, State::Asked(_)));
    }
}
