//! Asks the nearest copy or the writer, and tries again where that cannot do a thing twice.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, Transaction};

use crate::{
    Failure,
    failure::Remedy,
    pool::{Loan, Pool},
};

/// For one attempt at a read from the nearest copy; past it the writer is asked.
const NEAR_ATTEMPT: Duration = Duration::from_secs(1);
/// For one attempt on the writer.
const WRITER_ATTEMPT: Duration = Duration::from_secs(5);
/// For the commit's answer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read may take in all.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long a change may take in all: longer than a failover usually does.
const WRITE_DEADLINE: Duration = Duration::from_secs(12);
/// Between two attempts: the first pause, doubled each time up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// A change waits this long for another's lock, and for one statement, before it starts again.
const LIMITS: &str = "SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '4s'";

/// A question that changes nothing: it may be asked again at will.
pub trait Query: Sync {
    /// What it answers.
    type Answer: Send;

    /// Asks once.
    fn ask(&self, client: &Client) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// A change, made whole or not at all.
pub trait Change: Sync {
    /// What is known once it is made.
    type Outcome: Send;

    /// Makes it inside a transaction, which the caller commits.
    fn make(&self, tx: &Transaction<'_>) -> impl Future<Output = Result<Self::Outcome, Failure>> + Send;

    /// Whether making it a second time changes nothing more. Only then is it repeated after a commit
    /// whose outcome nobody knows.
    fn repeatable(&self) -> bool;
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The region's own copy.
    Near,
    /// The database that takes writes.
    Writer,
}

/// An answer and how old it may be.
#[derive(Debug, Clone)]
pub struct Dated<T> {
    /// The answer.
    pub answer: T,
    /// Every change committed longer ago than this is in it.
    pub age: Duration,
    /// Who gave it.
    pub source: Source,
}

/// Both ways to PostgreSQL.
pub struct Database {
    writer: Pool,
    near: Pool,
}

impl Database {
    /// Connects lazily.
    pub fn new(writer: &Config, near: &Config) -> Self {
        Self { writer: Pool::new(writer), near: Pool::new(near) }
    }

    /// How long ago the nearest copy and the writer last answered; `None` if they never did.
    pub fn silent_for(&self) -> (Option<Duration>, Option<Duration>) {
        (self.near.silent_for(), self.writer.silent_for())
    }

    /// Asks the nearest copy once, without a second try.
    pub async fn probe_near<Q: Query>(&self, query: &Q) -> Result<Q::Answer, Failure> {
        attempt_query(&self.near, query, NEAR_ATTEMPT).await
    }

    /// Asks the writer once, without a second try.
    pub async fn probe_writer<Q: Query>(&self, query: &Q) -> Result<Q::Answer, Failure> {
        attempt_query(&self.writer, query, WRITER_ATTEMPT).await
    }

    /// Asks the nearest copy, and the writer if that copy is down or does not hold the tables yet.
    pub async fn read<Q: Query>(&self, query: &Q) -> Result<Dated<Q::Answer>, Failure> {
        let query = WithAge(query);
        let dated = |(answer, age), source| Dated { answer, age, source };
        // Twice: an idle connection may have died since it was last used, a fresh one tells.
        for _ in 0..2 {
            match attempt_query(&self.near, &query, NEAR_ATTEMPT).await {
                Ok(answer) => return Ok(dated(answer, Source::Near)),
                Err(failure) => match failure.remedy() {
                    Remedy::Reconnect => self.near.close_idle(),
                    Remedy::Retry => {}
                    Remedy::Elsewhere => break,
                    Remedy::Report => return Err(failure),
                },
            }
        }
        self.ask_writer(&query).await.map(|answer| dated(answer, Source::Writer))
    }

    /// Asks the writer: the answer holds every change acknowledged before the question.
    pub async fn read_latest<Q: Query>(&self, query: &Q) -> Result<Q::Answer, Failure> {
        self.ask_writer(query).await
    }

    /// Makes a change on the writer. A connection lost before the commit was sent has changed nothing, so the
    /// change is made again; one lost during the commit is repeated only if that is harmless.
    pub async fn change<C: Change>(&self, change: &C) -> Result<C::Outcome, Failure> {
        let mut tries = Tries::within(WRITE_DEADLINE);
        loop {
            let failure = match attempt_change(&self.writer, change, tries.left(WRITER_ATTEMPT)).await {
                Ok(outcome) => return Ok(outcome),
                Err(Attempt::NothingChanged(failure)) => failure,
                Err(Attempt::CommitUnanswered(failure)) if change.repeatable() => failure,
                Err(Attempt::CommitUnanswered(_)) => return Err(Failure::OutcomeUnknown),
            };
            tries.next(failure, &self.writer).await?;
        }
    }

    async fn ask_writer<Q: Query>(&self, query: &Q) -> Result<Q::Answer, Failure> {
        let mut tries = Tries::within(READ_DEADLINE);
        loop {
            match attempt_query(&self.writer, query, tries.left(WRITER_ATTEMPT)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.next(failure, &self.writer).await?,
            }
        }
    }
}

/// How many attempts are left, by the clock.
struct Tries {
    until: Instant,
    pause: Duration,
}

impl Tries {
    fn within(deadline: Duration) -> Self {
        Self { until: Instant::now() + deadline, pause: PAUSE_FIRST }
    }

    fn left(&self, most: Duration) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(most)
    }

    /// Waits before the next attempt, or says why there is none.
    async fn next(&mut self, failure: Failure, pool: &Pool) -> Result<(), Failure> {
        match failure.remedy() {
            Remedy::Reconnect => pool.close_idle(),
            Remedy::Retry => {}
            // On the writer a missing table means that the first migration is still on its way.
            Remedy::Elsewhere => {}
            Remedy::Report => return Err(failure),
        }
        if Instant::now() + self.pause >= self.until {
            return Err(Failure::Unavailable);
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Why an attempt at a change failed, as far as that decides whether it may be made again.
enum Attempt {
    NothingChanged(Failure),
    CommitUnanswered(Failure),
}

async fn attempt_query<Q: Query>(pool: &Pool, query: &Q, most: Duration) -> Result<Q::Answer, Failure> {
    let ask = async {
        let mut loan = pool.lend().await?;
        let answer = query.ask(loan.client()).await;
        settle(loan, answer)
    };
    timeout(most, ask).await.unwrap_or(Err(Failure::Unavailable))
}

async fn attempt_change<C: Change>(pool: &Pool, change: &C, most: Duration) -> Result<C::Outcome, Attempt> {
    let mut loan = pool.lend().await.map_err(Attempt::NothingChanged)?;
    match make_and_commit(loan.client(), change, most).await {
        Ok(outcome) => settle(loan, Ok(outcome)).map_err(Attempt::NothingChanged),
        Err(Attempt::NothingChanged(failure)) => settle(loan, Err(failure)).map_err(Attempt::NothingChanged),
        Err(unanswered @ Attempt::CommitUnanswered(_)) => Err(unanswered),
    }
}

async fn make_and_commit<C: Change>(
    client: &mut Client,
    change: &C,
    most: Duration,
) -> Result<C::Outcome, Attempt> {
    let make = async {
        let tx = client.transaction().await?;
        tx.batch_execute(LIMITS).await?;
        let outcome = change.make(&tx).await?;
        Ok((tx, outcome))
    };
    let (tx, outcome) = timeout(most, make)
        .await
        .unwrap_or(Err(Failure::Unavailable))
        // A transaction that is dropped is rolled back before the connection's next statement.
        .map_err(Attempt::NothingChanged)?;
    let failure = match timeout(COMMIT_TIMEOUT, tx.commit()).await {
        Ok(Ok(())) => return Ok(outcome),
        Ok(Err(error)) => Failure::from(error),
        Err(_) => Failure::Unavailable,
    };
    match failure.remedy() {
        // A server that goes away may have stored the commit before it said so.
        Remedy::Reconnect => Err(Attempt::CommitUnanswered(failure)),
        Remedy::Retry | Remedy::Elsewhere | Remedy::Report => Err(Attempt::NothingChanged(failure)),
    }
}

/// Keeps the connection unless the failure says that it is of no more use.
fn settle<T>(loan: Loan<'_>, answer: Result<T, Failure>) -> Result<T, Failure> {
    match answer.as_ref().map_err(Failure::remedy) {
        Ok(_) | Err(Remedy::Retry | Remedy::Elsewhere | Remedy::Report) => loan.give_back(),
        Err(Remedy::Reconnect) => drop(loan),
    }
    answer
}

/// A query together with the age of the copy it is asked of.
struct WithAge<'q, Q>(&'q Q);

impl<Q: Query> Query for WithAge<'_, Q> {
    type Answer = (Q::Answer, Duration);

    async fn ask(&self, client: &Client) -> Result<Self::Answer, Failure> {
        // The stamp first: what is read after it is at least as fresh.
        let stamp = "SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM freshness";
        // A copy without the stamp is still being filled.
        let row = client.query_opt(stamp, &[]).await?.ok_or(Failure::CopyIncomplete)?;
        // Two machines' clocks are compared, so the difference may come out below zero.
        let age = Duration::try_from_secs_f64(row.get(0)).unwrap_or_default();
        Ok((self.0.ask(client).await?, age))
    }
}
