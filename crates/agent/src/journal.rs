//! Records every fact and every tick, so that a decision can be made again on a desk (`isles replay`).
//!
//! Holds no row values, secrets or addresses: facts have none. Losing the journal never stops the agent.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use isles_decide::{Decision, Helm};
use isles_model::{Because, Fact, LeaseOrder, Moment, Plan};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The newest journal, in the agent's data directory.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The one before it.
const OLDER_FILE: &str = "journal.1.jsonl";
/// A journal of this size becomes the older one, in bytes; so at most twice this is kept.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Lines that may wait for the disk; beyond it they are left out, and the gap is recorded.
const QUEUE_LINES_MAX: usize = 8_192;
/// How long a line may stay in memory.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// One line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A file begins: the helm as it was.
    Begin {
        /// The whole helm.
        helm: Box<Helm>,
    },
    /// A fact was observed.
    Observed {
        /// When, on the agent's clock.
        at: Moment,
        /// What.
        fact: Fact,
    },
    /// The helm was asked for a decision. `verdict` is there when it differs from the one before.
    Ticked {
        /// When, on the agent's clock.
        at: Moment,
        /// What it decided.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        verdict: Option<Verdict>,
    },
    /// So many lines are missing here: what follows cannot be replayed.
    Gap {
        /// How many.
        lines: u64,
    },
}

/// A decision, as far as two runs are compared by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its reason.
    pub because: Because,
    /// The orders.
    pub plan: Plan,
    /// What was asked of the lease store.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<LeaseOrder>,
}

impl Verdict {
    /// The comparable part of a decision.
    pub fn of(decision: &Decision) -> Self {
        Self { because: decision.because, plan: decision.plan.clone(), lease: decision.lease.clone() }
    }
}

/// The writing end.
pub struct Journal {
    lines: SyncSender<Line>,
    missed: u64,
    last: Option<Verdict>,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Journal {
    /// Begins a new journal in `directory`; an existing one becomes the older one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(directory: &Path, helm: &Helm) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
        let rotate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writer = Writer::create(directory, rotate.clone())?;
        std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&queue))?;
        let mut journal = Self { lines, missed: 0, last: None, full: rotate };
        journal.write(Line::Begin { helm: Box::new(helm.clone()) });
        Ok(journal)
    }

    /// Records a fact.
    pub fn observed(&mut self, at: Moment, fact: &Fact) {
        self.write(Line::Observed { at, fact: fact.clone() });
    }

    /// Records a tick and, where it brought something new, its decision; begins a new file when the present one is
    /// full. `helm` is the one that has just ticked.
    pub fn ticked(&mut self, at: Moment, decision: &Decision, helm: &Helm) {
        let verdict = Verdict::of(decision);
        let new = self.last.as_ref() != Some(&verdict);
        self.write(Line::Ticked { at, verdict: new.then(|| verdict.clone()) });
        self.last = Some(verdict);
        if self.full.swap(false, std::sync::atomic::Ordering::Relaxed) {
            self.write(Line::Begin { helm: Box::new(helm.clone()) });
            self.last = None;
        }
    }

    fn write(&mut self, line: Line) {
        if self.missed > 0 && self.lines.try_send(Line::Gap { lines: self.missed }).is_ok() {
            self.missed = 0;
        }
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.missed = self.missed.saturating_add(1);
            }
        }
    }
}

struct Writer {
    directory: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    fn create(directory: &Path, full: std::sync::Arc<std::sync::atomic::AtomicBool>) -> io::Result<Self> {
        let newest = directory.join(JOURNAL_FILE);
        if newest.exists() {
            fs::rename(&newest, directory.join(OLDER_FILE))?;
        }
        let file = BufWriter::new(File::create(newest)?);
        Ok(Self { directory: directory.to_owned(), file, bytes: 0, full })
    }

    fn run(mut self, queue: &Receiver<Line>) {
        loop {
            let written = match queue.recv_timeout(FLUSH_EVERY) {
                Ok(line) => self.put(&line),
                Err(RecvTimeoutError::Timeout) => self.file.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.file.flush();
                    return;
                }
            };
            if let Err(error) = written {
                warn!(%error, "The journal cannot be written; going on without it.");
                return;
            }
        }
    }

    fn put(&mut self, line: &Line) -> io::Result<()> {
        // `Begin` in a file that has lines starts the next file.
        if matches!(line, Line::Begin { .. }) && self.bytes > 0 {
            self.file.flush()?;
            *self = Self::create(&self.directory, self.full.clone())?;
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        if self.bytes >= FILE_BYTES_MAX {
            self.full.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Why a journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("cannot read the journal {file}")]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not a journal line.
    #[error("line {line} is not a journal line")]
    NotALine {
        /// Its number, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The first line does not hold the helm.
    #[error("the journal does not begin with the helm's state: it is not whole")]
    NoBeginning,
}

/// One decision, made again.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// The line of the journal, from 1.
    pub line: usize,
    /// When it was made, on the agent's clock.
    pub at: Moment,
    /// What is decided now.
    pub verdict: Verdict,
    /// What was decided then, where it differs.
    pub differs_from: Option<Verdict>,
}

/// Makes the decisions of a journal again and hands each changed one to `each`. Returns the number of ticks. A last
/// line that was cut off by the end of the agent is left out.
///
/// # Errors
/// When the file is not a whole journal.
pub fn replay(file: &Path, mut each: impl FnMut(Replayed)) -> Result<u64, ReplayError> {
    let read = |source| ReplayError::Read { file: file.to_owned(), source };
    let mut lines = BufReader::new(File::open(file).map_err(read)?).lines().enumerate().peekable();
    let mut helm: Option<Box<Helm>> = None;
    let (mut then, mut now, mut ticks) = (None::<Verdict>, None::<Verdict>, 0);
    while let Some((index, text)) = lines.next() {
        let line = match serde_json::from_str::<Line>(&text.map_err(read)?) {
            Ok(line) => line,
            Err(_) if lines.peek().is_none() => break,
            Err(source) => return Err(ReplayError::NotALine { line: index + 1, source }),
        };
        match line {
            Line::Begin { helm: state } => (helm, then, now) = (Some(state), None, None),
            Line::Gap { .. } => break,
            Line::Observed { at, fact } => helm.as_mut().ok_or(ReplayError::NoBeginning)?.observe(at, fact),
            Line::Ticked { at, verdict } => {
                ticks += 1;
                then = verdict.or(then);
                let decided = Verdict::of(&helm.as_mut().ok_or(ReplayError::NoBeginning)?.tick(at));
                let differs_from = then.clone().filter(|then| *then != decided);
                if now.as_ref() != Some(&decided) || differs_from.is_some() {
                    each(Replayed { line: index + 1, at, verdict: decided.clone(), differs_from });
                }
                now = Some(decided);
            }
        }
    }
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isles_decide::HelmConfig;
    use isles_model::{
        AttemptId, Epoch, LeaseKey, LeaseOutcome, LeaseState, Revision, Successor, topology::Pattern,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn helm() -> Helm {
        let [eu, us] = ["eu-west-1", "us-east-1"].map(|name| name.parse().unwrap());
        let config = HelmConfig {
            region: us,
            regions: vec![eu, "us-east-1".parse().unwrap()],
            pattern: Pattern::ReadReplicas,
            may_fail_over: true,
            ttl: SECOND * 2,
            margin: SECOND / 4,
            renew_every: SECOND / 5,
            patience: SECOND / 2,
            max_staleness: SECOND * 2,
            rtts: BTreeMap::new(),
            database_grace: SECOND,
            commit: isles_model::topology::Commit::Async,
            failsafe: false,
            quiet: SECOND * 600,
        };
        Helm::new(config, 1, Moment::ZERO)
    }

    /// Observes a few facts, ticking after each, and returns the directory with the journal.
    fn recorded() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut helm = helm();
        let mut journal = Journal::begin(directory.path(), &helm).unwrap();
        let held = LeaseKey {
            epoch: Epoch(3),
            holder: "eu-west-1".parse().unwrap(),
            seq: 4,
            state: LeaseState::Held,
            ttl: SECOND,
            successor: Successor::Any,
            unrest: 0,
        };
        let facts = [
            Fact::LeaseStoreSilent,
            Fact::LeaseSeen { key: Some(held), revision: Revision(9) },
            Fact::LeaseAnswered { attempt: AttemptId(1), outcome: LeaseOutcome::Unknown },
            Fact::PeerSilent { region: "eu-west-1".parse().unwrap() },
            Fact::Stopping,
        ];
        for (second, fact) in (1..).zip(facts) {
            let now = Moment(SECOND * second);
            journal.observed(now, &fact);
            helm.observe(now, fact);
            let decision = helm.tick(now);
            journal.ticked(now, &decision, &helm);
        }
        drop(journal);
        let file = directory.path().join(JOURNAL_FILE);
        let whole = || fs::read_to_string(&file).is_ok_and(|text| text.matches("ticked").count() == 5);
        while !whole() {
            std::thread::yield_now();
        }
        directory
    }

    fn replayed(file: &Path) -> (u64, Vec<Replayed>) {
        let mut all = Vec::new();
        let ticks = replay(file, |one| all.push(one)).unwrap();
        (ticks, all)
    }

    #[test]
    fn a_journal_replayed_gives_the_same_decisions() {
        let directory = recorded();
        let (ticks, decisions) = replayed(&directory.path().join(JOURNAL_FILE));
        assert_eq!(ticks, 5);
        assert!(decisions.len() >= 3, "the facts changed the decision: {decisions:?}");
        assert!(decisions.iter().all(|decision| decision.differs_from.is_none()), "{decisions:?}");
    }

    #[test]
    fn a_decision_that_comes_out_otherwise_is_reported() {
        let directory = recorded();
        let file = directory.path().join(JOURNAL_FILE);
        let text = fs::read_to_string(&file).unwrap();
        let forged = text
            .replace("\"draining\":true,\"", "\"draining\":false,\"")
            .replace("\"epoch\":3,\"writes\"", "\"epoch\":2,\"writes\"");
        assert_ne!(text, forged);
        fs::write(&file, forged).unwrap();
        let (_, decisions) = replayed(&file);
        assert!(decisions.iter().any(|decision| decision.differs_from.is_some()), "{decisions:?}");
    }

    #[test]
    fn a_last_line_cut_off_by_a_crash_is_left_out() {
        let directory = recorded();
        let file = directory.path().join(JOURNAL_FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 20]).unwrap();
        assert_eq!(replayed(&file).0, 4);
    }

    #[test]
    fn a_new_journal_keeps_the_one_before() {
        let directory = recorded();
        drop(Journal::begin(directory.path(), &helm()).unwrap());
        assert_eq!(replayed(&directory.path().join(OLDER_FILE)).0, 5);
    }
}
